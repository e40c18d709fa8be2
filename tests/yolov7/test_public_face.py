"""What `import yolov7` offers: names, signatures, shapes and order that others may build on."""

import inspect

import pytest
import torch
from golden_models import official_state_dict

import yolov7
from yolov7.criterion.config import LossConfig

STRIDES = (8, 16, 32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return yolov7.build_model(yolov7.ARCHITECTURES["yolov7"].scaled(depth=0.5, width=0.25), num_classes=4)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_names_and_signatures():
    assert sorted(yolov7.__all__) == sorted([
        "ARCHITECTURES", "Architecture", "Criterion", "architecture", "build_model", "load_official_state_dict",
        "postprocess", "reparameterize"])
    assert all(hasattr(yolov7, name) for name in yolov7.__all__)
    leading = {
        "build_model": ["name_or_architecture", "num_classes"],
        "load_official_state_dict": ["model", "state_dict"],
        "reparameterize": ["model"],
        "postprocess": ["predictions", "confidence_threshold", "iou_threshold"],
    }
    for name, parameters in leading.items():
        assert list(inspect.signature(getattr(yolov7, name)).parameters)[: len(parameters)] == parameters
    assert inspect.signature(yolov7.build_model).parameters["num_classes"].default == 80
    assert list(inspect.signature(yolov7.Architecture.scaled).parameters) == ["self", "depth", "width"]


def test_training_gives_raw_outputs_and_evaluation_pixels(model, images):
    outputs = model.train()(images)
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 64 // s, 96 // s, 9) for s in STRIDES]
    with torch.inference_mode():
        predictions = model.eval()(images)
    cells = [3 * (64 // s) * (96 // s) for s in STRIDES]
    assert predictions.shape == (2, sum(cells), 9)
    assert ((predictions[..., 4:] >= 0) & (predictions[..., 4:] <= 1)).all() and (predictions[..., 2:4] >= 0).all()
    for level, stride in zip(predictions.split(cells, dim=1), STRIDES):
        centres = level[..., :2].reshape(2, 3, 64 // stride, 96 // stride, 2)  # anchor, y, x
        cell = torch.stack(torch.meshgrid(torch.arange(64 // stride), torch.arange(96 // stride), indexing="ij")[::-1], -1)
        assert ((centres / stride - cell - 0.5).abs() <= 1).all()


def test_lead_levels_come_before_auxiliary_ones():
    model = yolov7.build_model(yolov7.architecture("yolov7-w6").scaled(depth=0.5, width=0.25), 2).train()
    outputs = model(torch.rand(2, 3, 128, 64))
    assert [tuple(output.shape[2:4]) for output in outputs] == [(16, 8), (8, 4), (4, 2), (2, 1)] * 2
    sum(output.sum() for output in outputs[4:]).backward()
    assert all(p.grad is None for name, p in model.named_parameters() if name.startswith("head.lead_convs"))


def test_the_folded_copy_predicts_the_same_and_leaves_the_model_alone(model, images):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = yolov7.reparameterize(model)
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), model.eval()(images), rtol=1e-4, atol=1e-4)
    assert folded.is_folded and not model.is_folded
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_criterion_and_postprocess_take_what_the_model_gives(model, images):
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.3, 0.4], [1, 3, 0.2, 0.6, 0.1, 0.2]])
    terms = yolov7.Criterion.for_model(model, LossConfig())(model.train()(images), targets)
    terms.total.backward()
    assert terms.total.item() == pytest.approx(2 * (terms.box + terms.objectness + terms.classification).item())
    with torch.inference_mode():
        found = yolov7.postprocess(model.eval()(images), 0.0, 0.65, max_detections=7)
    assert [tuple(detections.shape) for detections in found] == [(7, 6), (7, 6)]


def test_official_weights_are_taken_whole_or_not_at_all():
    model = yolov7.build_model("yolov7-tiny")
    weights = official_state_dict("yolov7-tiny")
    yolov7.load_official_state_dict(model, weights)
    missing = dict(list(weights.items())[:-1])
    with pytest.raises(ValueError, match="official weights"):
        yolov7.load_official_state_dict(model, missing)
    with pytest.raises(ValueError, match="official weights"):
        yolov7.load_official_state_dict(yolov7.build_model("yolov7-tiny", num_classes=3), weights)
