import dataclasses
import json

import pytest
import torch
from golden_models import FACTS
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7 import ARCHITECTURES, build_model, Architecture
from yolov7.architectures.family import TABLE_4, architecture
from yolov7.model.convolution import RepConvBlock
from yolov7.architectures.channels import halves, scaled_channels
from yolov7.model.describe import part_costs
from yolov7.architectures.blocks import Elan

DEPTHS = st.floats(0.33, 2.0)
WIDTHS = st.floats(0.25, 2.0)
NAMES = st.sampled_from(list(ARCHITECTURES))


def cost(scaled, image_size_px=64):
    parts = part_costs(scaled, image_size_px)
    return sum(part.num_parameters for part in parts), sum(part.num_flops for part in parts)


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


@settings(max_examples=6, deadline=None)
@given(name=NAMES, depth=st.none() | DEPTHS, width=st.none() | WIDTHS, extended=st.booleans())
def test_every_scaling_builds_and_runs(name, depth, width, extended):
    scaled = architecture(name).scaled(depth=depth, width=width)
    scaled = scaled.with_extended_elan() if extended else scaled
    outputs = {part.name: part.shape for part in part_costs(scaled, 128, 3) if "predictors" in part.name}
    levels = {f"predictors.{level}": (24, 128 // s, 128 // s) for level, s in enumerate(scaled.strides)}
    heads = ("lead", "auxiliary") if scaled.has_auxiliary else ("lead",)
    assert outputs == {f"head.{head}_{level}": shape for head in heads for level, shape in levels.items()}
    with torch.device("meta"):
        convs = {key: m for key, m in build_model(scaled, 3).named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert [key for key, conv in convs.items() if conv.out_channels % 8 and "predictors" not in key] == []


@settings(max_examples=4, deadline=None)
@given(name=NAMES, depths=st.tuples(DEPTHS, DEPTHS), widths=st.tuples(WIDTHS, WIDTHS))
def test_more_depth_or_width_never_costs_less(name, depths, widths):
    base, small, large = architecture(name), *zip(sorted(depths), sorted(widths))
    corner = base.scaled(*small)
    for less, more in [
        (base.scaled(depth=small[0]), base.scaled(depth=large[0])),
        (base.scaled(width=small[1]), base.scaled(width=large[1])),
        (corner, base.scaled(small[0], large[1])),
        (corner, base.scaled(large[0], small[1])),
    ]:
        assert all(a <= b for a, b in zip(cost(less), cost(more)))


@pytest.mark.parametrize(
    ("factors", "millions", "gflops"),
    [({}, 47.0, 125.5), ({"width": 1.25}, 73.4, 195.5), ({"depth": 2.0, "width": 1.0}, 69.3, 187.6),
     ({"depth": 1.5}, 71.3, 189.9)],
)  # fmt: skip
def test_table_3_of_the_paper(factors, millions, gflops):
    num_parameters, num_flops = cost(architecture("yolov7-x-light").scaled(**factors), 640)
    assert num_parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert num_flops / 1e9 == pytest.approx(gflops, rel=0.01)


def test_compound_scaling_keeps_hidden_channels_and_follows_the_branches():
    scaled = architecture("yolov7").scaled(depth=1.5)
    assert [stage.hidden_channels for stage in scaled.stages] == [64, 128, 256, 256]
    assert [stage.out_channels for stage in scaled.stages] == [320, 640, 1280, 1280]
    assert scaled.stages[0].block.num_steps == 3 and scaled.neck.block.num_steps == 6
    assert Elan(2, 2).compound_width(2.0) == 1.5


def test_scaling_takes_rep_convs_along():
    elan = Elan(3, 2, rep_convs=(1, 3, 5))
    assert elan.deepened(2.0).rep_convs == (1, 3, 5) and elan.deepened(0.5).rep_convs == (1, 3)
    with pytest.raises(ValueError, match=r"rep_convs \[6\]: an ELAN of 6 convolutions has 0 to 5"):
        Elan(3, 2, rep_convs=(0, 6))


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7", "yolov7-w6"])
def test_extended_elan_doubles_the_blocks_alone(name):
    def by_block(given):
        costs = {True: 0, False: 0}
        for part in part_costs(given.scaled(width=0.25), 64):
            costs[".block" in part.name] += part.num_parameters
        return costs

    plain, extended = by_block(architecture(name)), by_block(architecture(name).with_extended_elan())
    assert extended == {True: 2 * plain[True], False: plain[False]}


@pytest.mark.parametrize("placement", TABLE_4)
def test_table_4_places_rep_conv_in_every_3_stacked_elan(placement):
    changed, base = TABLE_4[placement], architecture("yolov7-x")
    assert architecture(placement) == changed
    assert changed.stages[0].block.num_convs == 6
    with torch.device("meta"):
        trained = build_model(changed)
        folded, ordinary = (build_model(given, folded=True) for given in (changed, base))
    num_elans = len(changed.stages) + len(trained.neck.top_down) + len(trained.neck.bottom_up)
    rep_convs = [module for module in trained.modules() if isinstance(module, RepConvBlock)]
    assert len(rep_convs) == num_elans * len(changed.neck.block.rep_convs)
    shapes = [{key: tuple(t.shape) for key, t in model.state_dict().items()} for model in (folded, ordinary)]
    assert shapes[0] == shapes[1]


def test_table_4_has_six_placements():
    assert len({changed.neck.block.rep_convs for changed in TABLE_4.values()}) == 6


def test_no_factor_changes_nothing_and_factors_show_in_the_name():
    tiny = architecture("yolov7-tiny")
    assert tiny.scaled() == tiny
    assert tiny.scaled(depth=1, width=1).replace(name=tiny.name) == tiny
    assert tiny.scaled(depth=0.5, width=0.25).name == "yolov7-tiny-d0.5-w0.25"


@pytest.mark.parametrize(("channels", "expected"), [(3, 8), (8, 8), (17, 24), (32.5, 40), (100, 104), (100.1, 104)])
def test_channels_round_up_to_8(channels, expected):
    assert scaled_channels(channels, 1.0) == expected


@pytest.mark.parametrize(("channels", "expected"), [(320, (160, 160)), (24, (16, 8)), (8, (4, 4)), (3, (2, 1))])
def test_halves_are_multiples_of_8_where_they_can_be(channels, expected):
    assert halves(channels) == expected


def test_rounding_ignores_the_last_bit():
    assert scaled_channels(320, 1.1) == 352


def test_errors_say_what_works():
    with pytest.raises(ValueError, match=r"'yolov9' is unknown; choose yolov7-tiny, .*yolov7-e6e, a baseline \(yolov3, "):
        architecture("yolov9")
    with pytest.raises(ValueError, match=r"yolov7: depth=0 cannot scale; give a positive number"):
        architecture("yolov7").scaled(depth=0)
    with pytest.raises(ValueError, match=r"width=nan"):
        architecture("yolov7").scaled(width=float("nan"))
    with pytest.raises(ValueError, match=r"partial_auxiliary needs halves to choose from"):
        w6 = architecture("yolov7-w6")
        w6.replace(head=dataclasses.replace(w6.head, partial_auxiliary=True))
    with pytest.raises(ValueError, match=r"yolov4-csp: its dark blocks have no extended; they have num_blocks"):
        architecture("yolov4-csp").with_extended_elan()
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
        (("neck", "block", "kind"), "vgg", r"architecture.neck.block: .* whose kind is one of elan, csp, dark"),
        (("stages", 1, "block", "num_blocks"), 3, r"architecture.stages\[1\].block: unknown fields"),
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
