"""`Detector("model.onnx")`: files of ours and of others, and those that do not fit."""

import numpy as np
import pytest
from serving import CLASSES, SIZE_PX, blind_model, boxes, expected_boxes, picture

from yolov7.checkpoints.export import export_onnx
from yolov7_ray.detect.detector import Detector
from yolov7_ray.engines.onnx_file import read_onnx
from yolov7_ray.errors import JobError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Path by kind of file."""
    folder, model = tmp_path_factory.mktemp("onnx"), blind_model()
    export_onnx(model, folder / "any.onnx", SIZE_PX, CLASSES, dynamic_size=True)
    export_onnx(model, folder / "fixed.onnx", SIZE_PX, CLASSES)
    export_onnx(model, folder / "nms.onnx", SIZE_PX, CLASSES, nms=True, confidence_threshold=0.3, iou_threshold=0.5)
    foreign = onnx.load(folder / "fixed.onnx")
    del foreign.metadata_props[:]
    foreign.metadata_props.add(key="classes", value="cat;dog")  # of others
    foreign.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(foreign, folder / "foreign.onnx")
    return folder


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", None])
@pytest.mark.parametrize("name", ["any", "fixed", "nms", "foreign"])
def test_it_sees_what_the_model_sees(files, name, engine):
    if engine:
        pytest.importorskip(engine)
    detector = Detector(str(files / f"{name}.onnx"), engine=engine, rectangular=False)
    assert detector.engine.name in ("onnxruntime", "openvino") and detector.image_size_px == SIZE_PX
    assert detector.classes == (tuple(CLASSES) if name != "foreign" else ("class 0", "class 1"))
    for size, found in zip([(64, 64), (96, 128)], detector([picture(64, 64), picture(96, 128)]), strict=True):
        np.testing.assert_allclose(boxes(found), expected_boxes(*size), atol=1e-2)
        np.testing.assert_allclose(found.scores, 0.81, atol=1e-4)
        assert found.labels.tolist() == [1] * 4
    assert len(detector(picture(), confidence=0.9)) == 0 and len(detector(picture(), max_detections=2)) == 2


def test_only_a_file_of_any_size_sees_rectangles(files):
    assert Detector(str(files / "any.onnx")).fit(np.zeros((16, 64, 3), np.uint8))[0].shape == (32, 64, 3)
    fixed = Detector(str(files / "fixed.onnx"))
    assert fixed.fit(np.zeros((16, 64, 3), np.uint8))[0].shape == (64, 64, 3)
    assert Detector(str(files / "any.onnx"), image_size_px=128).image_size_px == 128
    with pytest.raises(JobError, match=r"image_size_px: 128 does not fit .*fixed.onnx; it takes 64"):
        Detector(str(files / "fixed.onnx"), image_size_px=128)


def test_suppression_in_the_file_is_as_it_is(files):
    path = str(files / "nms.onnx")
    assert (Detector(path).options.confidence, Detector(path).options.iou) == (0.3, 0.5)
    for options in ({"iou": 0.45}, {"confidence": 0.2}, {"multi_label": True}, {"class_agnostic": True}):
        for detect in (lambda: Detector(path, **options), lambda: Detector(path)(picture(), **options)):
            with pytest.raises(JobError, match="options: do not fit the suppression in .*nms.onnx; leave iou 0.5, give a conf"):
                detect()


def test_what_torch_alone_can_do(files):
    path = str(files / "any.onnx")
    with pytest.raises(JobError, match="engine: torch does not run ONNX files; choose auto, onnxruntime or openvino"):
        Detector(path, engine="torch")
    with pytest.raises(JobError, match="test_time_augmentation: does not run with the engine auto"):
        Detector(path, test_time_augmentation=True)
    with pytest.raises(JobError, match="precision: int8: there is no model.int8.onnx"):
        Detector(path, engine="onnxruntime", precision="int8")


def program(inputs=(("images", onnx.TensorProto.FLOAT, [1, 3, 64, 64]),), outputs=((1, 10, 7),)) -> bytes:
    """A file with such inputs and outputs."""
    made = [onnx.helper.make_tensor_value_info(*given) for given in inputs]
    found = [onnx.helper.make_tensor_value_info(f"output{i}", onnx.TensorProto.FLOAT, shape) for i, shape in enumerate(outputs)]
    return onnx.helper.make_model(onnx.helper.make_graph([], "graph", made, found)).SerializeToString()


FLOAT = onnx.TensorProto.FLOAT


@pytest.mark.parametrize("data, message", [
    (b"no file", "m.onnx: is no ONNX file; give one with the input (B, 3, H, W) float32, RGB in [0, 1], and the output"),
    (program([("a", FLOAT, [1, 3, 64, 64]), ("b", FLOAT, [1])]), "its inputs are (1, 3, 64, 64), (1); give"),
    (program([("a", FLOAT, [1, 64, 64, 3])]), "its inputs are (1, 64, 64, 3); give"),
    (program([("a", onnx.TensorProto.FLOAT16, [1, 3, 64, 64])]), "takes images of type FLOAT16; give"),
    (program([("a", FLOAT, ["n", 3, 64, 96])]), "its images are (64, 96); export it for squares, or for any size"),
    (program(outputs=[(1, 3, 80, 80, 7), (1, 3, 40, 40, 7)]), "its outputs are (1, 3, 80, 80, 7), (1, 3, 40, 40, 7); give"),
    (program(outputs=[("d", 7)]), "its outputs are (any, 7); give"),
    (program(outputs=[(1, 10, 5)]), "its outputs are (1, 10, 5); give"),
])
def test_files_that_do_not_fit(data, message):
    with pytest.raises(JobError) as error:
        read_onnx(data, "m.onnx")
    assert message in str(error.value)


def test_a_file_that_tells_nothing(tmp_path):
    (tmp_path / "m.onnx").write_bytes(program([("a", FLOAT, ["b", 3, "h", "w"])]))
    found = read_onnx((tmp_path / "m.onnx").read_bytes(), "m.onnx")
    assert (found.classes, found.image_size_px, found.stride_px, found.any_size) == (("class 0", "class 1"), 0, 32, True)
    with pytest.raises(JobError, match="image_size_px: nobody says for which size; give it"):
        Detector(str(tmp_path / "m.onnx"))


def test_weights_in_another_file(files, tmp_path):
    onnx.save(onnx.load(files / "any.onnx"), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(JobError, match="m.onnx: keeps its weights in another file; save it as one file"):
        Detector(str(tmp_path / "m.onnx"))


def test_where_onnx_is_not_installed(files, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(JobError, match=r"any.onnx: is read with the package onnx, which is not installed; pip install"):
        Detector(str(files / "any.onnx"))


def test_threads_share_a_detector(files):
    from concurrent.futures import ThreadPoolExecutor

    pytest.importorskip("openvino")
    detector = Detector(str(files / "any.onnx"), engine="openvino")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(detector, [picture(64, 64)] * 16))
    for each in found:
        np.testing.assert_allclose(boxes(each), expected_boxes(64, 64), atol=1e-2)
