import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from golden_models import FACTS, GOLDENS, filled_model, golden_image, randomize_norms
from torch import nn

from yolov7 import ARCHITECTURES, build_model
from yolov7.model.reparameterize import reparameterize
from yolov7.architectures.family import architecture
from yolov7.model.convolution import ConvBlock, DownC, SpaceToDepth
from yolov7.model.describe import count_parameters
from yolov7.model.pooling import CspPyramidPooling
from yolov7.model.reparameterize import fuse

WIRING = json.loads((GOLDENS / "layer_inputs.json").read_text())
"""Of the models without golden outputs: [kind of layer, where its inputs come from], in the official order."""
TOLERANCE = 5  # times the gap between float32 and float64, which another order of summation may cost


def small(name):
    return architecture(name).scaled(depth=0.34, width=0.25)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_to_the_unit(name):
    with torch.device("meta"):
        model = build_model(name)
    assert count_parameters(model) == FACTS[name]["parameters_training"]
    assert count_parameters(fuse(model)) == FACTS[name]["parameters_fused"]
    assert count_parameters(reparameterize(model)) == FACTS[name]["parameters_folded"]


def assert_rows(predictions, golden, rows, box_gap, score_gap):
    gap = np.abs(predictions[0].numpy()[golden[f"{rows}_idx"]] - golden[f"{rows}_rows"])
    assert gap[:, :4].max() <= TOLERANCE * box_gap
    assert gap[:, 4:].max() <= TOLERANCE * score_gap


def assert_raw(outputs, golden, kind):
    for level, (output, gap) in enumerate(zip(outputs, golden[f"{kind}_maxdiff_f32_f64"], strict=True)):
        assert list(output.shape) == golden[f"{kind}{level}_shape"].tolist()
        flat = output.detach().flatten().numpy()
        strided = flat[:: int(golden[f"{kind}{level}_stride"])][:256]
        np.testing.assert_allclose(flat[:64], golden[f"{kind}{level}_first64"], rtol=0, atol=TOLERANCE * gap)
        np.testing.assert_allclose(strided, golden[f"{kind}{level}_strided"], rtol=0, atol=TOLERANCE * gap)
        assert flat.std() == pytest.approx(golden[f"{kind}{level}_std"], rel=1e-3)


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7", "yolov7-w6", "yolov7-e6"])
def test_outputs_equal_the_official_ones(name):
    model, image, golden = filled_model(name), golden_image(), np.load(GOLDENS / f"{name}.npz")
    with torch.no_grad():
        predictions = model(image)
        assert list(predictions.shape) == golden["pred_shape"].tolist()
        assert_rows(predictions, golden, "pred", *golden["pred_maxdiff_f32_f64"])
        assert_raw(model.raw_outputs(image), golden, "evalraw")
        assert_rows(reparameterize(model)(image), golden, "fused", *golden["fused_vs_unfused_maxdiff"])
        assert_raw(model.train()(image), golden, "train")


def wired_by(layers, model, images):
    """Run the model's own modules, in the order of their definition, as an official layer table wires them."""
    layers_of_many = [m for m in model.modules() if isinstance(m, (DownC, CspPyramidPooling))]
    inside = {part for layer in layers_of_many for part in layer.modules()} - set(layers_of_many)
    modules = (m for m in model.modules() if m in layers_of_many or isinstance(m, ConvBlock) and m not in inside)
    without_weights = {
        "ReOrg": SpaceToDepth(), "MP": nn.MaxPool2d(2), "Upsample": nn.Upsample(scale_factor=2),
        "Concat": lambda *maps: torch.cat(maps, dim=1), "Shortcut": lambda a, b: a + b,
    }  # fmt: skip
    outputs = []
    for index, (kind, sources) in enumerate(layers):
        sources = [sources] if isinstance(sources, int) else sources
        maps = [outputs[index + s if s < 0 else s] if outputs else images for s in sources]
        if kind in ("IDetect", "IAuxDetect"):
            assert next(modules, None) is None
            return [f(m) for f, m in zip([*model.head.lead_predictors, *model.head.auxiliary_predictors], maps)]
        outputs.append((without_weights.get(kind) or next(modules))(*maps))


@pytest.mark.parametrize("name", WIRING)
def test_wiring_equals_the_official_layer_table(name):
    model = randomize_norms(build_model(architecture(name).scaled(width=0.25), 1)).eval()
    images = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        outputs = model.head(*model.neck(model.backbone(images)))
        theirs = wired_by(WIRING[name], model, images)
    for ours, output in zip(outputs, theirs, strict=True):
        torch.testing.assert_close(ours.permute(0, 1, 4, 2, 3).flatten(1, 2), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_and_a_gradient_everywhere(name):
    model = build_model(small(name), 4).train()
    num_levels = model.architecture.num_levels
    outputs = model(torch.rand(2, 3, 128, 64))
    assert len(outputs) == num_levels * (2 if model.architecture.has_auxiliary else 1)
    for output, stride in zip(outputs, model.strides * 2):
        assert output.shape == (2, 3, 128 // stride, 64 // stride, 9)
    sum(output.square().mean() for output in outputs).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    assert [key for key, g in gradients.items() if g is None or not g.isfinite().all() or not g.any()] == []
    with torch.no_grad():
        predictions = model.eval()(torch.rand(2, 3, 128, 64))
    assert predictions.shape == (2, sum(3 * (128 // s) * (64 // s) for s in model.strides), 9)


def test_the_auxiliary_head_of_an_extended_model_sees_the_second_half():
    model = build_model(small("yolov7-e6e"), 1).train()
    for step in model.neck.top_down:
        step.block.first.requires_grad_(False)
    features = model.backbone(torch.rand(2, 3, 128, 128))
    step = model.neck.top_down[0]
    fused, seen = step(model.neck.pyramid_pooling(features[-1]), features[-2])
    assert fused.shape == seen.shape and not torch.allclose(fused, seen)


def test_the_auxiliary_head_may_see_whole_blocks_or_be_left_out():
    e6e = small("yolov7-e6e")
    whole = e6e.replace(head=dataclasses.replace(e6e.head, partial_auxiliary=False))
    model = build_model(whole, 1).eval()
    with torch.no_grad():
        lead, auxiliary = model.neck(model.backbone(torch.rand(1, 3, 64, 64)))
    assert torch.equal(lead[0], auxiliary[0])
    bare = build_model(e6e.without_auxiliary(), 1)
    assert count_parameters(reparameterize(bare)) == count_parameters(reparameterize(model))
    assert len(bare.train()(torch.rand(2, 3, 64, 64))) == 4


def test_raw_outputs_are_the_lead_outputs_in_either_mode():
    model, images = build_model(small("yolov7-w6"), 2), torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        lead = model.train().raw_outputs(images)
        trained = model(images)
        assert len(lead) == 4 and all(torch.equal(a, b) for a, b in zip(lead, trained[:4]))
        evaluated = model.eval().raw_outputs(images)
        assert torch.equal(model.decode(evaluated), model(images))


def test_decode_orders_by_level_anchor_y_x_and_scales_to_pixels():
    model = build_model(small("yolov7-tiny"), 2)
    raw = [torch.zeros(1, 3, 96 // s, 64 // s, 7) for s in model.strides]
    raw[1][0, 2, 3, 1] = torch.tensor([100.0, -100.0, 100.0, -100.0, 100.0, -100.0, 0.0])
    predictions = model.decode(raw)
    assert predictions.shape == (1, 3 * (12 * 8 + 6 * 4 + 3 * 2), 7)
    assert predictions[0, 8 + 3].tolist() == [28.0, 12.0, 10.0, 13.0, 0.5, 0.5, 0.5]  # level 0, anchor 0, y 1, x 3
    row = 3 * 12 * 8 + 2 * 6 * 4 + 3 * 4 + 1  # level 1, anchor 2, y 3, x 1: stride 16, anchor 59 x 119
    assert predictions[0, row].tolist() == [(1 + 1.5) * 16, (3 - 0.5) * 16, 4 * 59.0, 0.0, 1.0, 0.0, 0.5]


def test_predictions_stay_float32_and_close_under_autocast():
    model, images = build_model(small("yolov7"), 2).eval(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert model.raw_outputs(images)[0].dtype == torch.bfloat16
            rough = model(images)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs()[..., :4].max() < 2.0


def test_memory_format_does_not_change_the_result():
    model, images = build_model(small("yolov7-e6"), 2).eval(), torch.rand(2, 3, 128, 128)
    with torch.inference_mode():
        contiguous = model(images)
        last = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(contiguous, last, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("num_classes", [1, 80])
def test_fresh_scores_start_at_their_prior(num_classes):
    model = build_model(small("yolov7-w6"), num_classes).eval()
    with torch.inference_mode():
        outputs = model.raw_outputs(torch.rand(1, 3, 64, 64))
    for output, stride in zip(outputs, model.strides):
        assert output[..., 4].mean() == pytest.approx(math.log(8 / (640 / stride) ** 2), abs=0.5)
        assert output[..., 5:].mean() == pytest.approx(math.log(0.6 / (num_classes - 0.99)), abs=0.5)


def test_the_same_seed_builds_the_same_model():
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_model(small("yolov7-tiny")).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("shape", [(1, 3, 100, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_images_that_do_not_fit(shape):
    model = build_model(small("yolov7-tiny"), 1)
    with pytest.raises(ValueError, match=r"give \(B, 3, H, W\) with H and W multiples of 32"):
        model(torch.zeros(shape))


def test_no_class_is_refused():
    with pytest.raises(ValueError, match="num_classes=0"):
        build_model("yolov7-tiny", 0)
