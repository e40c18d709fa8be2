"""`Detector`: every way to give a model and an image, and what comes out, in pixels of the image."""

import io
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from official_files import as_official, save_official
from serving import CLASSES, SIZE_PX, blind_model, boxes, expected_boxes, picture, register_blind_model, seeing_model

import yolov7_ray
from yolov7.images.sample import decode_image
from yolov7_ray.detect import detector as detector_module
from yolov7_ray.detect.detections import Detections
from yolov7_ray.detect.detector import Detector, least_canvas_hw, reduction
from yolov7_ray.engines import choice
from yolov7_ray.errors import JobError, NotFound
from yolov7_ray.registry.model_source import LoadedModel


def loaded(model=None) -> LoadedModel:
    return LoadedModel(model or blind_model(), CLASSES, SIZE_PX, "here", {})


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(loaded(), rectangular=False)


# --- models ----------------------------------------------------------------------------------------------


def test_the_packages_face():
    assert yolov7_ray.Detector is Detector and yolov7_ray.Detections is Detections
    with pytest.raises(AttributeError, match="Detektor"):
        yolov7_ray.Detektor


def test_a_file_a_version_and_an_alias_are_the_same_model(tmp_path):
    version = register_blind_model(str(tmp_path / "registry"), tmp_path)
    for ref in (str(tmp_path / "shapes-1.safetensors"), "shapes", "shapes@latest", version.ref):
        size_px = SIZE_PX if ref.endswith(".safetensors") else None  # this file does not tell its own
        detector = Detector(ref, registry=str(tmp_path / "registry"), image_size_px=size_px)
        assert (detector.classes, detector.image_size_px) == (tuple(CLASSES), SIZE_PX)
        np.testing.assert_allclose(boxes(detector(picture(64, 64))), expected_boxes(64, 64), atol=1e-3)


def test_official_weights(tmp_path):
    from yolov7.model.detector import build_model

    torch.manual_seed(0)
    model = build_model("yolov7", 2)
    detector = Detector(str(save_official(tmp_path / "official.pt", as_official(model))))
    assert detector.classes == ("class 0", "class 1") and detector.image_size_px == 640
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(JobError, match=rf"^{tmp_path}/text.pt: .*; give weights of an official YOLOv7$"):
        Detector(str(tmp_path / "text.pt"))


@pytest.mark.parametrize("settings, message", [
    ({"engine": "tflite"}, "engine: 'tflite' is unknown; choose auto, torch, onnxruntime, openvino"),
    ({"device": "cuda:99"}, "device: 'cuda:99' is not there: "),
    ({"device": "gpu"}, "device: 'gpu' is unknown; choose auto, cpu, cuda or cuda:NUMBER"),
    ({"image_size_px": 100}, "image_size_px: 100 is not a multiple of the model's largest stride 32; choose 96 or 128"),
    ({"image_size_px": 20}, "choose 32 or 64"),
    ({"confidence": 2}, "confidence: 2 is out of range; give a number from 0 to 1"),
    ({"max_detections": 0}, "max_detections: 0 leaves nothing; give at least 1"),
    ({"engine": "onnxruntime", "precision": "bf16"}, "engine: onnxruntime computes in fp32, int8, not in bf16"),
    ({"engine": "auto", "test_time_augmentation": True}, "does not run with the engine auto; choose torch"),
])
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(JobError) as error:
        Detector(loaded(), **settings)
    assert message in str(error.value)


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="model file does not exist"):
        Detector(str(tmp_path / "no.safetensors"))


# --- images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(64, 64), (96, 128), (333, 47), (1, 9)])
def test_all_kinds_of_images_give_the_same_boxes(detector, tmp_path, height, width):
    data = picture(height, width, ".png")
    pixels, path = decode_image(data), tmp_path / "a.png"
    path.write_bytes(data)
    given = [path, str(path), data, bytearray(data), memoryview(data), pixels, PIL.Image.open(io.BytesIO(data)),
             PIL.Image.open(path)]
    for image in given:
        found = detector(image)
        np.testing.assert_allclose(boxes(found), expected_boxes(height, width), atol=1e-3)
        named = isinstance(image, (str, Path)) or image is given[-1]
        assert found.size_hw == (height, width) and found.source == (str(path) if named else "")
        np.testing.assert_array_equal(found.picture(), pixels)


def test_the_image_matters():
    """The blind model sees the same everywhere; this one does not."""
    detector = Detector(loaded(seeing_model()), confidence=0.0, max_detections=5)
    first, second = detector([picture(96, 128), picture(64, 64)])
    assert np.abs(first.scores - second.scores).max() > 0.003
    np.testing.assert_allclose(detector(picture(96, 128)).scores, first.scores, atol=1e-6)


def test_many_images_come_back_in_order(detector):
    sizes = [(64, 64), (96, 128), (333, 47), (64, 64), (50, 200)]
    images = [picture(*size) for size in sizes]
    for many in (images, tuple(images), iter(images)):
        found = detector(many, batch_size=2)
        assert [each.size_hw for each in found] == sizes
        for each, size in zip(found, sizes):
            np.testing.assert_allclose(boxes(each), expected_boxes(*size), atol=1e-3)
    batch = np.stack([decode_image(images[0])] * 3)
    assert [len(each) for each in detector(batch)] == [4, 4, 4]
    assert detector([]) == [] and len(detector(images[:1])) == 1


def test_rectangles_hold_the_fitted_image_in_fewer_pixels():
    detector, image = Detector(loaded()), decode_image(picture(16, 64))
    pixels, fit = detector.fit(image)
    assert pixels.shape == (32, 64, 3) and fit.pad_y == 8
    assert len(detector(image)) == 2  # cells of the last level
    assert least_canvas_hw((427, 640), 320, 32) == (224, 320)


def test_photos_are_seen_as_displayed(detector):
    stored = PIL.Image.fromarray(decode_image(picture(96, 128)))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    stored.save(content, "JPEG", exif=exif)
    for image in (content.getvalue(), PIL.Image.open(content)):
        found = detector(image)
        assert found.size_hw == (128, 96)
        np.testing.assert_allclose(boxes(found), expected_boxes(128, 96), atol=1e-3)


@pytest.mark.parametrize("size_hw, size_px, part", [
    ((3000, 4000), 640, 4), ((480, 640), 256, 2), ((480, 640), 257, 1), ((640, 480), 64, 8), ((480, 640), 640, 1),
    ((10, 10), 640, 1),
])
def test_the_part_at_which_a_photo_is_decoded(size_hw, size_px, part):
    assert reduction(size_hw, size_px) == part


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_photos_are_decoded_at_a_part_of_their_size_where_asked_for(monkeypatch, tmp_path, orientation):
    exif, content = PIL.Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    PIL.Image.fromarray(decode_image(picture(641, 853))).save(content, "JPEG", exif=exif, quality=90)
    size_hw = (641, 853) if orientation == 1 else (853, 641)
    (tmp_path / "a.jpg").write_bytes(content.getvalue())
    seen = []
    monkeypatch.setattr(detector_module, "decode_image", lambda data, part=1: seen.append(part) or decode_image(data, part))
    reduced = Detector(loaded(), rectangular=False, reduced_decoding=True)
    for image in (content.getvalue(), tmp_path / "a.jpg"):
        found = reduced(image)
        np.testing.assert_allclose(boxes(found), expected_boxes(*size_hw), atol=1e-2)
        assert found.size_hw == found.picture().shape[:2] == size_hw
    assert seen == [8, 8]
    whole, pixels = (Detector(loaded(seeing_model()), confidence=0.0, max_detections=5, reduced_decoding=wanted)
                     for wanted in (False, True))
    np.testing.assert_allclose(pixels(content.getvalue()).scores, whole(content.getvalue()).scores, atol=0.1)
    same = decode_image(content.getvalue())
    np.testing.assert_array_equal(pixels(same).scores, whole(same).scores)
    with pytest.raises(JobError, match="image: 8 bytes starting with b'no image'"):
        reduced(b"no image")


def test_grey_images(detector):
    for shape in ((40, 50), (40, 50, 1)):
        assert detector(np.full(shape, 9, np.uint8)).picture().shape == (40, 50, 3)
    assert detector(PIL.Image.new("L", (50, 40))).size_hw == (40, 50)


@pytest.mark.parametrize("image, message", [
    (np.zeros((4, 4, 3), np.float32), r"image: array of shape \(4, 4, 3\) and type float32; give a path"),
    (np.zeros((3, 4, 4), np.uint8), r"array of shape \(3, 4, 4\)"),
    (np.zeros((0, 4, 3), np.uint8), r"array of shape \(0, 4, 3\)"),
    (b"no image", "image: 8 bytes starting with b'no image' are no image that can be decoded"),
    (17, "image: int is none; give a path or URI"),
    (None, "image: NoneType is none"),
])
def test_what_is_no_image(detector, image, message):
    for given in (image, [picture(), image]):
        with pytest.raises(JobError, match=message):
            detector(given)


def test_a_file_that_is_no_image_is_named(detector, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(JobError, match=f"^{tmp_path}/a.jpg: 1 bytes"):
        detector(tmp_path / "a.jpg")
    with pytest.raises(NotFound, match="b.jpg"):
        detector(tmp_path / "b.jpg")


def test_options_of_one_call(detector):
    assert len(detector(picture(), confidence=0.9)) == 0 and len(detector(picture())) == 4
    assert len(detector(picture(), max_detections=3)) == 3
    with pytest.raises(JobError, match="iou: -1 is out of range"):
        detector(picture(), iou=-1)
    with pytest.raises(TypeError, match="confidense"):
        detector(picture(), confidense=0.5)


# --- detections ------------------------------------------------------------------------------------------

FOUND = Detections(np.array([[1, 2, 11, 22], [0, 0, 5, 5.5], [3, 3, 4, 4]], np.float32),
                   np.array([0.9, 0.5, 0.25], np.float32), np.array([1, 0, 1]), ("cat", "dog"), (30, 40), "a.jpg",
                   lambda: np.zeros((30, 40, 3), np.uint8))


def test_detections_one_by_one_and_chosen():
    first, *_ = FOUND
    assert first == ((1, 2, 11, 22), pytest.approx(0.9), 1, "dog") and first.name == "dog"
    assert FOUND.names == ["dog", "cat", "dog"] and len(FOUND) == 3
    assert FOUND[0].names == FOUND[-3].names == ["dog"] and FOUND[-1].scores.tolist() == [0.25]
    assert FOUND[1:].names == FOUND[np.array([False, True, True])].names == FOUND[[1, 2]].names == ["cat", "dog"]
    assert FOUND.filter(0.5).names == ["dog", "cat"] and FOUND.filter(0.3, ["dog"]).names == ["dog"]
    assert len(FOUND.filter(names=[])) == 0
    with pytest.raises(JobError, match="names: cow is no class of the model; its classes are cat, dog"):
        FOUND.filter(names=["cow"])
    assert repr(FOUND) == "<Detections in a.jpg, 40 x 30 px: 2 dog, 1 cat>"
    assert repr(FOUND[:0]) == "<Detections in a.jpg, 40 x 30 px: nothing>"


def test_detections_in_other_forms():
    frame = FOUND.to_pandas()
    assert list(frame.columns) == ["x1", "y1", "x2", "y2", "score", "label", "name"]
    assert frame.iloc[0].tolist() == [1, 2, 11, 22, pytest.approx(0.9), 1, "dog"] and len(FOUND[:0].to_pandas()) == 0
    assert FOUND.to_coco(7)[0] == {"image_id": 7, "category_id": 2, "score": 0.9, "bbox": [1, 2, 10, 20]}
    assert [entry["category_id"] for entry in FOUND.to_coco("x", [10, 20])] == [20, 10, 20]


def test_supervision_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(JobError, match="the package supervision is not installed; pip install supervision"):
        FOUND.to_supervision()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_the_drawn_picture(tmp_path, suffix):
    FOUND.save(tmp_path / f"drawn{suffix}")
    drawn = cv2.imread(str(tmp_path / f"drawn{suffix}"))
    assert drawn.shape == (360, 480, 3) and drawn.max() > 100  # enlarged, so that texts can be read
    assert FOUND.plot().size == (480, 360)
    assert PIL.Image.open(io.BytesIO(FOUND._repr_png_())).size == (480, 360)


def test_a_picture_that_cannot_be_drawn(tmp_path):
    blind = Detections(FOUND.boxes_xyxy, FOUND.scores, FOUND.labels, FOUND.classes, FOUND.size_hw)
    assert blind._repr_png_() is None
    with pytest.raises(JobError, match="do not know their image"):
        blind.plot()
    with pytest.raises(JobError, match="is no name of a picture; let it end with .jpg"):
        FOUND.save(tmp_path / "drawn.txt")


# --- engines ---------------------------------------------------------------------------------------------


def installed(engine: str) -> str:
    if engine != "torch":
        pytest.importorskip(engine)
        pytest.importorskip("onnxscript")
    return engine


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_see_the_same(engine):
    images = [picture(96, 128), picture(64, 64), picture(40, 64)]  # two shapes of input
    ours = Detector(loaded(seeing_model()), confidence=0.0, max_detections=20)
    theirs = Detector(loaded(seeing_model()), confidence=0.0, max_detections=20, engine=installed(engine))
    assert repr(theirs) == f"<Detector here: 2 classes, 64 px, {engine} fp32 on cpu>"
    for expected, found in zip(ours(images), theirs(images), strict=True):
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=0.1)
        assert found.names == expected.names


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_half_precision_is_near(engine):
    ours = Detector(loaded(seeing_model()))
    theirs = Detector(loaded(seeing_model()), engine=installed(engine), precision="bf16")
    sample = torch.from_numpy(ours.fit(decode_image(picture(96, 128)))[0]).permute(2, 0, 1)[None]
    difference = (theirs.engine.predict(sample).float() - ours.engine.predict(sample))[..., 4:].abs()
    assert theirs.engine.precision == "bf16" and 1e-5 < difference.mean() < 0.02


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(JobError, match=r"engine: onnxruntime needs the package onnxruntime, which is not installed; pip "
                                       r"install 'yolov7-ray\[onnxruntime\]'"):
        Detector(loaded(), engine="onnxruntime")


def test_auto_takes_the_fastest_that_sees_the_same(monkeypatch):
    class Same(choice.TorchEngine):
        name = "same"

    class Wrong(choice.TorchEngine):
        name = "wrong"

        def predict(self, images):
            return super().predict(images) + 0.01

    def missing(model, device, precision):
        raise JobError("engine", "is not installed")

    monkeypatch.setattr(choice, "ENGINES", {"torch": choice.TorchEngine, "wrong": Wrong, "same": Same,
                                             "missing": missing})
    times = iter([[30.0, 10.0, 20.0], [8.0, 9.0, 7.0]])  # of torch and of same; nobody times what is wrong
    monkeypatch.setattr(choice, "timed_ms", lambda work: next(times))
    detector = Detector(loaded(), engine="auto")
    assert detector.engine.name == "same"
    assert list(map(str, detector.measured)) == ["torch fp32 20.0 ms", "wrong fp32 differs by 0.01 from PyTorch in fp32",
                                                 "same fp32 8.0 ms", "missing fp32 is not installed"]
