"""Exported models answer as torch does: ONNX with and without suppression, and torch.export."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from yolov7 import build_model
from yolov7.evaluation.postprocess import postprocess
from yolov7.model.reparameterize import reparameterize
from yolov7.__main__ import main
from yolov7.architectures.family import architecture
from yolov7.checkpoints.export import export_onnx, export_program, DetectorWithNms
from yolov7.images.sample import decode_image, letterbox
from yolov7.checkpoints.weights import save_model

BOX_TOLERANCE_PX, SCORE_TOLERANCE = 1e-2, 1e-4
CLASSES = ["cup", "Tür", "three", "four"]
THRESHOLDS = {"confidence_threshold": 0.3, "iou_threshold": 0.45, "max_detections": 40}


def smooth_images(batch, height=128, width=128, seed=0):
    """Generated images with objects of several sizes, as predictions of pure noise are nearly all alike."""
    coarse = torch.rand(batch, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def real_images():
    """(5, 3, 128, 128), photographs."""
    root = Path(os.environ.get("YOLOV7_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
    files = sorted((root / "coco-tiny" / "val2017").glob("*.jpg"))[:5]
    if not files:
        pytest.skip(f"no photographs at {root}: set YOLOV7_TEST_DATA")
    images = [letterbox(decode_image(file.read_bytes()), (128, 128))[0] for file in files]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def two_levels():
    """The first two levels of yolov7-tiny, as exporting takes a while for every layer."""
    tiny = architecture("yolov7-tiny").scaled(depth=0.33, width=0.25)
    neck = dataclasses.replace(
        tiny.neck, channels=tiny.neck.channels[:2], hidden_channels=tiny.neck.hidden_channels[:2]
    )
    head = dataclasses.replace(tiny.head, channels=tiny.head.channels[:2])
    return tiny.replace(
        name="two-levels", stages=tiny.stages[:3], neck=neck, head=head, anchors_px=tiny.anchors_px[:2]
    )


@pytest.fixture(scope="module")
def model():
    """A model whose scores vary: batch statistics of real size, and predictors with something to say."""
    torch.manual_seed(0)
    model = build_model(two_levels(), len(CLASSES)).train()
    for predictor in model.head.lead_predictors:
        predictor.bias.data.normal_(0, 1)
        predictor.weight.data.normal_(0, 0.5)
    for seed in range(20):
        model(smooth_images(8, seed=seed))
    return model.eval()


@pytest.fixture(scope="module")
def plain_file(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    save_model(folder / "model.safetensors", model, CLASSES)
    main(["export", str(folder / "model.safetensors"), "-o", str(folder / "plain.onnx"), "--image-size", "128"])
    return folder / "plain.onnx"


@pytest.fixture(scope="module")
def nms_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "nms.onnx"
    export_onnx(model, path, 128, CLASSES, nms=True, dynamic_size=True, **THRESHOLDS)
    return path


def run(path, images):
    onnxruntime = pytest.importorskip("onnxruntime")
    [output] = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})
    return torch.from_numpy(output)


def assert_predictions(found, expected):
    assert found.shape == expected.shape
    assert (found - expected)[..., :4].abs().max() < BOX_TOLERANCE_PX
    assert (found - expected)[..., 4:].abs().max() < SCORE_TOLERANCE


def assert_detections(found, predictions):
    """The same detections for each image, in order of their scores."""
    expected = postprocess(predictions, multi_label=False, **THRESHOLDS)
    assert sum(map(len, expected)) > 3 * len(expected) and len(found) == sum(map(len, expected))
    for image, wanted in enumerate(expected):
        ours = found[found[:, 0] == image][:, 1:]
        assert len(ours) == len(wanted)
        assert (ours[:, 4] - wanted[:, 4]).abs().max() < SCORE_TOLERANCE
        gaps = (ours[:, None, :4] - wanted[None, :, :4]).abs().amax(dim=2)
        gaps[ours[:, None, 5] != wanted[None, :, 5]] = torch.inf
        assert gaps.amin(dim=1).max() < BOX_TOLERANCE_PX and gaps.amin(dim=0).max() < BOX_TOLERANCE_PX


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_predicts_as_torch(model, plain_file, batch):
    images = smooth_images(batch, seed=100)
    assert_predictions(run(plain_file, images), model(images).detach())


def test_onnx_predicts_as_torch_on_photographs(model, plain_file, real_images):
    assert_predictions(run(plain_file, real_images), model(real_images).detach())


@pytest.mark.parametrize("shape", [(1, 128, 128), (3, 128, 128), (2, 96, 160)])
def test_onnx_suppresses_as_torch_for_any_size(model, nms_file, shape):
    images = smooth_images(*shape, seed=100)
    assert_detections(run(nms_file, images), model(images).detach())


def test_onnx_suppresses_as_torch_on_photographs(model, nms_file, real_images):
    assert_detections(run(nms_file, real_images), model(real_images).detach())


def test_nothing_detected_is_an_empty_answer(nms_file, model):
    silent = DetectorWithNms(reparameterize(model), 1.0, 0.45, 10)
    assert silent(smooth_images(2)).shape == (0, 7)
    assert run(nms_file, smooth_images(2)).shape[1] == 7


def test_the_file_explains_itself(plain_file, nms_file):
    onnx = pytest.importorskip("onnx")
    for path, output, axes in ((plain_file, "predictions", ["batch", 960, 9]), (nms_file, "detections", [None, 7])):
        loaded = onnx.load(path)
        onnx.checker.check_model(loaded)
        metadata = {entry.key: json.loads(entry.value) for entry in loaded.metadata_props}
        assert metadata["classes"] == CLASSES and metadata["strides"] == [8, 16]
        assert metadata["image_size_px"] == 128 and metadata["architecture"] == "two-levels"
        [images], [answer] = loaded.graph.input, loaded.graph.output
        assert (images.name, answer.name) == ("images", output)
        assert images.type.tensor_type.shape.dim[0].dim_param == "batch"
        shape = [axis.dim_value or axis.dim_param for axis in answer.type.tensor_type.shape.dim]
        assert shape[-1] == axes[-1] and (axes[0] is None or shape == axes)
        assert not any(node.op_type == "BatchNormalization" for node in loaded.graph.node), "it is not folded"
    assert metadata["max_detections"] == 40 and metadata["output_columns"].startswith("image x1")


def test_torch_export_of_any_batch(model):
    program = export_program(model, 64).module()
    for batch in (1, 4):
        images = smooth_images(batch, 64, 64)
        torch.testing.assert_close(program(images), model(images), rtol=1e-4, atol=1e-3)


def test_detections_are_those_of_postprocess_for_one_class_too():
    torch.manual_seed(1)
    model = reparameterize(build_model(architecture("yolov7-tiny").scaled(depth=0.33, width=0.25), 1))
    for predictor in model.head.lead_predictors:
        predictor.bias.data.normal_(0, 1)
    images = torch.rand(2, 3, 64, 64)
    found = DetectorWithNms(model, 0.3, 0.45, 40)(images)
    expected = postprocess(model(images), 0.3, 0.45, multi_label=False, max_detections=40)
    for image, wanted in enumerate(expected):
        torch.testing.assert_close(found[found[:, 0] == image][:, 1:], wanted)


@pytest.mark.parametrize(("keywords", "message"), [
    ({"image_size_px": 100}, "image_size_px: 100 does not fit; give a multiple of 16"),
    ({"image_size_px": 0}, "image_size_px: 0 does not fit"),
    ({"image_size_px": 16, "dynamic_size": True}, "multiple of 16, at least 32"),
    ({"nms": True, "iou_threshold": 1.5}, "iou_threshold: 1.5 is out of range"),
    ({"nms": True, "confidence_threshold": -1.0}, "confidence_threshold: -1.0 is out of range"),
    ({"nms": True, "max_detections": 0}, "max_detections: 0 leaves nothing"),
    ({"classes": ["one"]}, "1 class names for 4 classes"),
])  # fmt: skip
def test_what_cannot_be_exported(model, tmp_path, keywords, message):
    with pytest.raises(ValueError, match=message):
        export_onnx(model, tmp_path / "x.onnx", **({"image_size_px": 64} | keywords))
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_library_says_how_to_install_it(model, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'yolov7-ray\[export\]'"):
        export_onnx(model, tmp_path / "x.onnx", 64)
