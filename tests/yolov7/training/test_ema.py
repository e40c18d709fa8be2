"""The average follows the model at the paper's rate, statistics and all."""

import pytest
import torch
from torch import nn

from yolov7.training.ema import EMA
from yolov7.training.config import EMAConfig


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def test_decay_ramps_up():
    config = EMAConfig()
    assert config.decay_at(0) == 0
    assert config.decay_at(2000) == pytest.approx(0.9999 * (1 - 0.36787944))
    assert config.decay_at(10**6) == pytest.approx(0.9999)


def test_update_is_the_weighted_mean_of_floats_and_a_copy_of_counters():
    model = network()
    ema = EMA(model, EMAConfig(decay=0.5, ramp_updates=1e-9))
    before = [t.clone() for t in ema.tensors()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model(torch.randn(4, 1, 3, 3))
    ema.update()
    for average, old, new in zip(ema.tensors(), before, model.state_dict().values()):
        expected = (old + new) / 2 if new.is_floating_point() else new
        torch.testing.assert_close(average, expected)
    assert ema.num_updates == 1


def test_the_average_never_trains():
    ema = EMA(network(), EMAConfig())
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())


@pytest.mark.parametrize("bad", [{"decay": 1.0}, {"ramp_updates": 0}])
def test_impossible_values_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=f"ema.{next(iter(bad))}"):
        EMAConfig(**bad)
