import json

import pytest
import torch
from golden_models import GOLDENS, randomize_norms

from yolov7 import build_model, Architecture, Criterion
from yolov7.model.reparameterize import reparameterize
from yolov7.architectures.family import ABLATIONS, ARCHITECTURES, BASELINES, architecture
from yolov7.architectures.baselines import TABLE_5
from yolov7.model.convolution import RepConvBlock
from yolov7.model.describe import count_flops, count_parameters
from yolov7.model.reparameterize import fuse

FACTS = json.loads((GOLDENS / "baselines.json").read_text())


def small(name):
    return architecture(name).scaled(depth=0.34, width=0.25)


def on_meta(name):
    with torch.device("meta"):
        return build_model(name)


def test_names():
    assert list(BASELINES) == list(FACTS)
    assert not set(BASELINES) & set(ARCHITECTURES) and not set(ABLATIONS) & {*ARCHITECTURES, *BASELINES}
    assert all(architecture(name).name == name for name in (*BASELINES, *ABLATIONS))


@pytest.mark.parametrize("name", BASELINES)
def test_parameters_to_the_unit(name):
    model, facts = on_meta(name), FACTS[name]
    assert count_parameters(model) == facts["parameters_training"]
    assert count_parameters(fuse(model)) == facts["parameters_fused"]
    implicit = sum(p.numel() for key, p in model.named_parameters() if key.endswith(("addition", "multiplication")))
    assert count_parameters(reparameterize(model)) == facts["parameters_fused"] - implicit
    assert bool(implicit) == (not name.startswith(("yolov3", "yolov4")))


@pytest.mark.parametrize("name", BASELINES)
def test_flops_strides_and_anchors(name):
    ours, facts = architecture(name), FACTS[name]
    size_px = ours.default_image_size_px
    assert size_px == facts["image_size_px"]
    assert count_flops(ours, size_px) / 1e9 == pytest.approx(facts["gflops_training"], rel=1e-3)
    assert count_flops(ours, size_px, folded=True) / 1e9 == pytest.approx(facts["gflops_folded"], rel=1e-3)
    assert list(ours.strides) == facts["strides"]
    assert json.loads(json.dumps(ours.anchors_px)) == facts["anchors_px"]


@pytest.mark.parametrize("name", [*BASELINES, *ABLATIONS])
def test_survives_json(name):
    for ours in (architecture(name), small(name)):
        assert Architecture.from_dict(json.loads(json.dumps(ours.to_dict()))) == ours


@pytest.mark.parametrize("name", BASELINES)
def test_trains_everywhere_and_folds(name):
    torch.manual_seed(0)
    model = build_model(small(name), 2).train()
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.6], [1, 0, 0.3, 0.6, 0.2, 0.1]])
    outputs = model(torch.rand(2, 3, 64, 64))
    Criterion.for_model(model)(outputs, targets).total.backward()
    gradients = {key: p.grad for key, p in model.named_parameters()}
    assert [key for key, g in gradients.items() if g is None or not g.isfinite().all() or not g.any()] == []

    model, images = randomize_norms(model).eval(), torch.rand(1, 3, 64, 64)
    folded = reparameterize(model)
    with torch.inference_mode():
        assert model(images).shape == (1, sum(3 * (64 // s) ** 2 for s in model.strides), 7)
        for ours, theirs in zip(folded.raw_outputs(images), model.raw_outputs(images), strict=True):
            assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


def test_depth_and_width_are_dials_of_their_own():
    deep = architecture("yolov4-csp").scaled(depth=2.0)
    assert [stage.block.num_blocks for stage in deep.stages] == [2, 4, 16, 16, 8]
    assert deep.neck.channels == (128, 256, 512)  # depth implies no width: nothing is concatenated step by step
    widened = [count_parameters(on_meta(architecture("x50-csp").scaled(width=width))) for width in (0.3, 0.5, 1.0)]
    assert widened == sorted(widened)


@pytest.mark.parametrize("name", TABLE_5)
def test_table_5_changes_the_dark_blocks_of_the_backbone(name):
    changed, base = on_meta(small(name)), on_meta(small(name.rpartition("-")[0]))
    rep_convs = [key for key, module in changed.named_modules() if isinstance(module, RepConvBlock)]
    num_blocks = sum(stage.block.num_blocks for stage in changed.architecture.stages)
    assert len(rep_convs) == (num_blocks if "rep" in name.rpartition("-")[2] else 0)
    assert all(key.startswith("backbone.stages") for key in rep_convs)
    # the paper: dark and reversed dark blocks have the same parameters and operations
    assert count_parameters(reparameterize(changed)) == count_parameters(reparameterize(base))
    assert count_flops(changed.architecture, 64, folded=True) == count_flops(base.architecture, 64, folded=True)


def test_a_reversed_dark_block_begins_with_its_3x3():
    kernels = {}
    for row in ("repcsp", "reprcsp"):
        block = on_meta(f"yolor-csp-{row}").backbone.stages[1].block.blocks[0]
        kernels[row] = [isinstance(conv, RepConvBlock) for conv in block.convs]
    assert kernels == {"repcsp": [False, True], "reprcsp": [True, False]}
