"""The schedule is a pure function of the step; parameter groups hold every parameter once."""

import math

import pytest
import torch

from yolov7 import build_model
from yolov7.architectures.family import ARCHITECTURES
from yolov7.training.config import OptimizerConfig
from yolov7.training.schedule import Schedule
from yolov7.training.optimizer import build_optimizer, parameter_groups

TINY = ARCHITECTURES["yolov7-tiny"].scaled(depth=0.5, width=0.25)


def schedule(epochs=300, steps_per_epoch=1000, batch_size=16, nominal=64, **config):
    return Schedule(OptimizerConfig(**config), epochs, steps_per_epoch, batch_size, nominal)


def test_cosine_falls_from_one_to_the_final_ratio():
    plan = schedule(final_learning_rate_ratio=0.1)
    expected = [(1 - math.cos(e * math.pi / 300)) / 2 * (0.1 - 1) + 1 for e in (0, 75, 150, 300)]
    assert [plan.decay(e) for e in (0, 75, 150, 300)] == pytest.approx(expected)
    assert expected == pytest.approx([1, 0.8682, 0.55, 0.1], abs=1e-4)


def test_warmup_takes_the_recipes_thousand_steps_but_never_a_tenth_of_a_short_run():
    assert schedule(steps_per_epoch=7000).warmup_steps == 21000
    assert schedule(steps_per_epoch=100).warmup_steps == 1000
    assert schedule(epochs=10, steps_per_epoch=20, warmup_epochs=0).warmup_steps == 20
    assert schedule(epochs=10, steps_per_epoch=20, warmup_epochs=2).warmup_steps == 40


def test_accumulation_rises_to_the_nominal_batch_and_flushes_at_an_epochs_end():
    plan = schedule(steps_per_epoch=1000)
    assert [plan.accumulation(step) for step in (0, 1500, 3000, 10**5)] == [1, 2, 4, 4]
    assert not plan.updates_after(10_000, 3) and plan.updates_after(10_000, 4)
    assert plan.updates_after(10_999, 1), "the last step of an epoch leaves no gradient behind"


def test_learning_rates_warm_up_by_role():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    plan = schedule(learning_rate=0.01, warmup_bias_learning_rate=0.1)
    optimizer = build_optimizer(model, plan)

    def at(step):
        plan.apply(optimizer, step)
        return {g["role"]: (g["lr"], g["momentum"]) for g in optimizer.param_groups}

    assert at(0) == {"weight": (0, 0.8), "scale": (0, 0.8), "bias": (0.1, 0.8)}
    warm = at(3000)
    for role in ("weight", "bias"):
        assert warm[role] == pytest.approx((0.01 * plan.decay(3), 0.937))


def test_every_parameter_is_in_one_group_and_only_convolutions_decay():
    model = build_model(TINY, num_classes=3)
    groups = parameter_groups(model)
    ids = [id(p) for group in groups.values() for p in group]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert all(p.ndim == 4 for p in groups["weight"])
    decays = {g["role"]: g["weight_decay"] for g in build_optimizer(model, schedule()).param_groups}
    assert decays == {"weight": 0.0005, "scale": 0, "bias": 0}


@pytest.mark.parametrize("nominal", [64, 128])
@pytest.mark.parametrize(("batch_size", "decay"), [(16, 0.0005), (64, 0.0005), (128, 0.0010), (256, 0.0020)])
def test_weight_decay_grows_with_batches_above_64_as_in_the_reference(batch_size, decay, nominal):
    optimizer = build_optimizer(torch.nn.Conv2d(3, 4, 3), schedule(batch_size=batch_size, nominal=nominal))
    decays = {g["role"]: g["weight_decay"] for g in optimizer.param_groups}
    assert decays == {"weight": pytest.approx(decay), "bias": 0}


@pytest.mark.parametrize("algorithm", ["sgd", "adam", "adamw"])
def test_every_algorithm_lowers_a_quadratic(algorithm):
    model = torch.nn.Linear(4, 1)
    plan = schedule(algorithm=algorithm, learning_rate=0.05, warmup_epochs=0, epochs=1, steps_per_epoch=50)
    optimizer = build_optimizer(model, plan)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    losses = []
    for step in range(50):
        plan.apply(optimizer, step)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("bad", [{"learning_rate": 0}, {"momentum": 1.0}, {"weight_decay": -1}])
def test_impossible_values_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=f"optimizer.{next(iter(bad))}"):
        OptimizerConfig(**bad)
