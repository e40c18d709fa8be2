"""Recipes, and what of them changes over a run."""

import math
from types import SimpleNamespace

import pytest
import torch

from yolov7.criterion.config import LossConfig
from yolov7.images.config import AugmentConfig
from yolov7.training.config import EMAConfig, OptimizerConfig
from yolov7.training.engine import Statistics, update
from yolov7.training.recipes import FILLED, RECIPES
from yolov7.training.schedule import Schedule

CONFIGS = {"optimizer": OptimizerConfig, "loss": LossConfig, "augment": AugmentConfig, "ema": EMAConfig}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fills_keys_that_there_are(name):
    for section, values in RECIPES[name].items():
        assert section in FILLED and (section not in CONFIGS or CONFIGS[section](**values))


@pytest.mark.parametrize("classes, size_px", [(1, 256), (4, 64), (80, 640)])
def test_gains_of_small_are_the_same_for_any_number_of_classes_and_size(classes, size_px):
    small = LossConfig(**RECIPES["small"]["loss"])
    assert small.scaled_to(classes, 3, size_px) == small
    four = small.scaled_to(classes, 4, size_px)
    assert four.classification_gain == pytest.approx(small.classification_gain * 3 / 4)
    assert LossConfig(classification_gain=0.3).scaled_to(4, 3, 320).classification_gain == pytest.approx(0.015)


def test_mosaics_are_closed_in_the_last_epochs():
    augment = AugmentConfig(mosaic=0.5, mixup=0.1, paste_in=0.2, close_mosaic=2)
    assert augment.at(7, 10) == augment
    closed = augment.at(8, 10)
    assert (closed.mosaic, closed.mixup, closed.paste_in, closed.scale) == (0, 0, 0, augment.scale)
    share = AugmentConfig(close_mosaic=0.15)
    assert [share.at(epoch, 20).mosaic for epoch in (16, 17, 19)] == [1, 0, 0]
    assert AugmentConfig().at(99, 100) == AugmentConfig()
    with pytest.raises(ValueError, match="close_mosaic: -1 is negative"):
        AugmentConfig(close_mosaic=-1)


def test_the_rate_falls_by_a_line_or_a_cosine():
    linear, cosine = (Schedule(OptimizerConfig(schedule=kind, final_learning_rate_ratio=0.2), 10, 5, 16, 16)
                      for kind in ("linear", "cosine"))
    assert [linear.decay(epoch) for epoch in (0, 2.5, 5, 10)] == pytest.approx([1, 0.8, 0.6, 0.2])
    assert [cosine.decay(epoch) for epoch in (0, 2.5, 5, 10)] == pytest.approx(
        [1, 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2, 0.6, 0.2])


@pytest.mark.parametrize("clip_norm, expected", [(0.0, [-3.0, -4.0]), (10.0, [-3.0, -4.0]), (1.0, [-0.6, -0.8])])
def test_a_long_gradient_is_shortened(clip_norm, expected):
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    schedule = Schedule(OptimizerConfig(clip_norm=clip_norm), 1, 1, 16, 16)
    state = SimpleNamespace(optimizer=torch.optim.SGD([weight], lr=1.0), schedule=schedule, totals=torch.zeros(4),
                            ema=SimpleNamespace(update=lambda: None), skipped_in_a_row=0)
    update(state, torch.zeros(4, dtype=torch.float64), Statistics(torch.nn.BatchNorm2d(1)))
    assert weight.detach().tolist() == pytest.approx(expected)
