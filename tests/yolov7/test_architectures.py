import dataclasses
import json

import pytest
import torch
from golden_models import FACTS
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7 import ARCHITECTURES, Architecture, build_model
from yolov7.architectures import YOLOV7_X_LIGHT, Elan, architecture, scaled_channels
from yolov7.describe import count_flops, count_parameters

DEPTHS = st.floats(0.33, 2.0)
WIDTHS = st.floats(0.25, 2.0)
NAMES = st.sampled_from(sorted(ARCHITECTURES))


def cost(scaled, image_size_px=64):
    with torch.device("meta"):
        model = build_model(scaled)
    return count_parameters(model), count_flops(model, image_size_px)


def test_the_family_is_complete():
    assert list(ARCHITECTURES) == [
        "yolov7-tiny", "yolov7-tiny-silu", "yolov7", "yolov7-x", "yolov7-w6", "yolov7-e6", "yolov7-d6", "yolov7-e6e",
    ]  # fmt: skip
    assert all(architecture(name).name == name for name in ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_strides_anchors_and_image_size(name):
    ours, facts = architecture(name), FACTS[name]
    assert list(ours.strides) == facts["strides"]
    assert json.loads(json.dumps(ours.anchors_px)) == facts["anchors_px"]
    assert ours.default_image_size_px == facts["image_size_px"]
    assert ours.num_levels == len(facts["strides"])
    assert ours.has_auxiliary == (ours.num_levels == 4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_survives_json(name):
    for ours in (architecture(name), architecture(name).scaled(depth=0.5, width=0.7)):
        assert Architecture.from_dict(json.loads(json.dumps(ours.to_dict()))) == ours


@settings(max_examples=10, deadline=None)
@given(name=NAMES, depth=st.none() | DEPTHS, width=st.none() | WIDTHS)
def test_every_scaling_builds_and_runs(name, depth, width):
    scaled = architecture(name).scaled(depth=depth, width=width)
    with torch.device("meta"), torch.no_grad():
        outputs = build_model(scaled, 3).train()(torch.empty(2, 3, 64, 128))
    levels = [(2, 3, 64 // stride, 128 // stride, 8) for stride in scaled.strides]
    assert [tuple(output.shape) for output in outputs] == levels * (2 if scaled.has_auxiliary else 1)
    channels = [scaled.stem.channels, scaled.neck.channels, scaled.neck.hidden_channels, scaled.head.channels]
    channels += [dataclasses.astuple(stage)[1:] for stage in scaled.stages]
    assert all(c % 8 == 0 and c > 0 for group in channels for c in group)


@settings(max_examples=4, deadline=None)
@given(name=NAMES, depths=st.tuples(DEPTHS, DEPTHS), widths=st.tuples(WIDTHS, WIDTHS))
def test_more_depth_or_width_never_costs_less(name, depths, widths):
    base = architecture(name)
    small, large = sorted(depths), sorted(widths)
    chains = [
        [base.scaled(depth=depth) for depth in small],
        [base.scaled(width=width) for width in large],
        [base.scaled(depth=depth, width=width) for depth, width in zip(small, large)],
    ]
    for less, more in chains:
        assert all(a <= b for a, b in zip(cost(less), cost(more)))


@pytest.mark.parametrize(
    ("factors", "millions", "gflops"),
    [({}, 47.0, 125.5), ({"width": 1.25}, 73.4, 195.5), ({"depth": 2.0, "width": 1.0}, 69.3, 187.6),
     ({"depth": 1.5}, 71.3, 189.9)],
)  # fmt: skip
def test_table_3_of_the_paper(factors, millions, gflops):
    num_parameters, num_flops = cost(YOLOV7_X_LIGHT.scaled(**factors), 640)
    assert num_parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert num_flops / 1e9 == pytest.approx(gflops, rel=0.01)


def test_compound_scaling_keeps_hidden_channels_and_follows_the_branches():
    scaled = architecture("yolov7").scaled(depth=1.5)
    assert [stage.hidden_channels for stage in scaled.stages] == [64, 128, 256, 256]
    assert [stage.out_channels for stage in scaled.stages] == [320, 640, 1280, 1280]
    assert scaled.elan.num_steps == 3 and scaled.neck.elan.num_steps == 6
    assert Elan(2, 2).compound_width(2.0) == 1.5


def test_no_factor_changes_nothing_and_factors_show_in_the_name():
    tiny = architecture("yolov7-tiny")
    assert tiny.scaled() == tiny
    assert tiny.scaled(depth=1, width=1).replace(name=tiny.name) == tiny
    assert tiny.scaled(depth=0.5, width=0.25).name == "yolov7-tiny-d0.5-w0.25"


@pytest.mark.parametrize(("channels", "expected"), [(3, 8), (8, 8), (17, 24), (32.5, 40), (100, 104), (100.1, 104)])
def test_channels_round_up_to_8(channels, expected):
    assert scaled_channels(channels, 1.0) == expected


def test_rounding_ignores_the_last_bit():
    assert scaled_channels(320, 1.1) == 352


def test_errors_say_what_works():
    with pytest.raises(ValueError, match=r"'yolov9' is unknown; choose yolov7-tiny, .*yolov7-e6e"):
        architecture("yolov9")
    with pytest.raises(ValueError, match=r"yolov7: depth=0 cannot scale; give a positive number"):
        architecture("yolov7").scaled(depth=0)
    with pytest.raises(ValueError, match=r"width=nan"):
        architecture("yolov7").scaled(width=float("nan"))
    with pytest.raises(ValueError, match=r"anchors_px has 4 levels; neck.channels has 3"):
        architecture("yolov7").replace(anchors_px=architecture("yolov7-w6").anchors_px)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("activation",), "relu", r"architecture.activation: 'relu' is unknown; choose 'silu', 'leaky-relu'"),
        (("stages",), 3, r"architecture.stages: 3 does not fit"),
        (("head", "channels", 1), "wide", r"architecture.head.channels\[1\]: 'wide' does not fit"),
        (("neck", "pool"), 1, r"architecture.neck: unknown fields \['pool'\]"),
        (("stem",), [], r"architecture.stem: \[\] does not fit; give a mapping"),
    ],
)
def test_from_dict_names_the_wrong_field(path, value, message):
    data = json.loads(json.dumps(architecture("yolov7").to_dict()))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        Architecture.from_dict(data)


def test_from_dict_names_missing_fields():
    data = architecture("yolov7").to_dict()
    del data["anchors_px"]
    with pytest.raises(ValueError, match=r"missing fields \['anchors_px'\]"):
        Architecture.from_dict(data)
