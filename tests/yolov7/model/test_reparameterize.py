import pytest
import torch
from golden_models import randomize_norms
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7 import ARCHITECTURES, build_model
from yolov7.model.reparameterize import reparameterize
from yolov7.architectures.family import ABLATIONS, BASELINES, architecture
from yolov7.model.convolution import RepConvBlock
from yolov7.model.describe import count_parameters, describe
from yolov7.model.head import ImplicitConv2d
from yolov7.model.reparameterize import fuse


REP_CONVS = ["yolov7-x-rep-last-of-step", "yolor-csp-reprcsp"]


def relative_gap(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("name", [*ARCHITECTURES, *REP_CONVS])
@settings(max_examples=2, deadline=None)
@given(depth=st.none() | st.floats(0.33, 1.2), width=st.floats(0.25, 0.3), seed=st.integers(0, 2**31 - 1))
def test_folded_equals_trained(name, depth, width, seed):
    torch.manual_seed(seed)
    model = randomize_norms(build_model(architecture(name).scaled(depth=depth, width=width), 3), seed).eval()
    folded, images = reparameterize(model), torch.rand(1, 3, 64, 128)
    with torch.inference_mode():
        for ours, theirs in zip(folded.raw_outputs(images), model.raw_outputs(images), strict=True):
            assert relative_gap(ours, theirs) < 1e-4
        ours, theirs = folded(images), model(images)
    assert relative_gap(ours[..., :4], theirs[..., :4]) < 1e-4
    assert relative_gap(ours[..., 4:], theirs[..., 4:]) < 1e-4


@settings(max_examples=8, deadline=None)
@given(
    name=st.sampled_from([*ARCHITECTURES, *BASELINES, *ABLATIONS]),
    depth=st.none() | st.floats(0.33, 2.0),
    width=st.none() | st.floats(0.25, 2.0),
)
def test_the_folded_model_has_exactly_the_deployed_parameters(name, depth, width):
    """One weight and one bias per convolution that runs: no statistics, no 1x1 of RepConv, no auxiliary head."""
    with torch.device("meta"):
        model = build_model(architecture(name).scaled(depth=depth, width=width), 3)
    convs = {key: module for key, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)}
    deployed = sum(
        conv.weight.numel() + conv.out_channels
        for key, conv in convs.items()
        if "auxiliary" not in key and ".pointwise." not in key
    )
    assert count_parameters(reparameterize(model)) == deployed


def test_a_description_gives_the_total_of_each_form():
    scaled = architecture("yolov7-w6").scaled(depth=0.34, width=0.25)
    model = build_model(scaled, 3)
    forms = {"training form": model, "fused": fuse(model), "folded": reparameterize(model)}
    for line, (form, same) in zip(describe(scaled, 3, 64).splitlines()[-3:], forms.items(), strict=True):
        assert line.startswith(form) and f" {count_parameters(same):,} " in line


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
def test_only_plain_convolutions_remain_and_the_model_is_left_alone(name):
    model = build_model(architecture(name).scaled(width=0.25), 3).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    folded = reparameterize(model)
    trained_only = (torch.nn.BatchNorm2d, RepConvBlock, ImplicitConv2d)
    assert not any(isinstance(module, trained_only) for module in folded.modules())
    assert folded.is_folded and not folded.training and not any(p.requires_grad for p in folded.parameters())
    assert not any("auxiliary" in key for key in folded.state_dict())
    assert not model.is_folded and model.training and all(p.requires_grad for p in model.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_folded_weights_load_into_a_model_built_folded():
    scaled, images = architecture("yolov7").scaled(width=0.25), torch.rand(1, 3, 64, 64)
    folded = reparameterize(randomize_norms(build_model(scaled, 2)))
    rebuilt = build_model(scaled, 2, folded=True)
    rebuilt.load_state_dict(folded.state_dict(), strict=True)
    assert rebuilt.is_folded and not rebuilt.training
    assert torch.equal(rebuilt(images), folded(images))


def test_folding_twice_is_folding_once():
    folded = reparameterize(build_model(architecture("yolov7").scaled(width=0.25), 2))
    again, images = reparameterize(folded), torch.rand(1, 3, 64, 64)
    assert torch.equal(again(images), folded(images))
