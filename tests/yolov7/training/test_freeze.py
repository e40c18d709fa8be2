"""Frozen modules stay bit for bit as they are, statistics included; everything else learns."""

import pytest
import torch
from test_engine import CLASSES, TINY, build, criterion, train_batches

from yolov7.training.config import EMAConfig
from yolov7.training.engine import train_one_epoch
from yolov7.training.freeze import check_frozen, freeze, train_mode
from yolov7.model.detector import build_model
from yolov7.training.state import TrainState

FROZEN = ["backbone.stem", "backbone.stages.0", "head.lead_convs.1"]


def frozen_state(seed: int = 0) -> TrainState:
    torch.manual_seed(seed)
    return TrainState.build(TINY, CLASSES, build(4, 2).schedule, EMAConfig(), frozen=FROZEN)


def is_frozen(name: str) -> bool:
    return any(name.startswith(f"{prefix}.") for prefix in FROZEN)


def test_only_what_is_frozen_stays():
    state = frozen_state()
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    for _ in range(2):
        train_one_epoch(state, train_batches() * 2, criterion(state))
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, before[name]) == (is_frozen(name) or name == "anchors_px"), name
    for name, value in state.ema.model.state_dict().items():
        if is_frozen(name):
            assert torch.equal(value, before[name]), name
    assert all((parameter.grad is None) for name, parameter in state.model.named_parameters() if is_frozen(name))


def test_the_optimizer_holds_what_learns_alone():
    state = frozen_state()
    held = {id(parameter) for group in state.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for name, parameter in state.model.named_parameters() if not is_frozen(name)}


def test_frozen_norms_use_their_statistics_and_others_those_of_the_batch():
    model = frozen_state().model.eval()
    train_mode(model)
    assert model.training and not model.backbone.stem[0].norm.training
    assert model.backbone.stages[1].downsample.training and model.head.lead_convs[0].norm.training


def test_a_checkpoint_of_a_frozen_model_is_whole_and_goes_on_bit_for_bit(tmp_path):
    straight, stopped, resumed = frozen_state(), frozen_state(), frozen_state(seed=1)
    for state in (straight, stopped):
        train_one_epoch(state, train_batches() * 2, criterion(state))
    stopped.save(tmp_path)
    resumed.load(tmp_path)
    for state in (straight, resumed):
        train_one_epoch(state, train_batches() * 2, criterion(state))
    for (name, one), other in zip(straight.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(one, other), name
    assert all(torch.equal(a, b) for a, b in zip(straight.ema.tensors(), resumed.ema.tensors()))


def test_frozen_parameters_are_counted_once():
    model = build_model(TINY, 2)
    expected = sum(parameter.numel() for parameter in model.backbone.parameters())
    assert freeze(model, ["backbone", "backbone.stem"]) == expected
    assert freeze(build_model(TINY, 2), []) == 0


@pytest.mark.parametrize(("names", "message"), [
    (["backbon"], "'backbon' is no module of this architecture; choose among backbone, neck, head"),
    (["backbone.stages.9"], "choose among backbone.stages.0, backbone.stages.1, backbone.stages.2, backbone.stages.3"),
    (["neck.nose.left"], "choose among neck.pyramid_pooling, neck.top_down, neck.bottom_up"),
    (["backbone", "neck", "head"], "backbone, neck, head leave nothing to train; freeze less"),
])
def test_mistakes(names, message):
    with pytest.raises(ValueError, match=message):
        check_frozen(build_model(TINY, 2), names)
