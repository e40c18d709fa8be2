"""Exponential moving average of a model: the weights that are evaluated, saved and served."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class EMAConfig:
    """How fast the average follows the model."""

    decay: float = 0.9999
    """Share of the old average that each update keeps, once warmed up."""
    ramp_updates: float = 2000
    """Time constant, in updates, with which the decay rises from 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"ema.decay: {self.decay} is outside [0, 1)")
        if self.ramp_updates <= 0:
            raise ValueError(f"ema.ramp_updates: {self.ramp_updates} is not positive")

    def decay_at(self, num_updates: int) -> float:
        """d(t) = decay (1 - exp(-t / ramp)): early averages forget the random start quickly."""
        return self.decay * (1 - math.exp(-num_updates / self.ramp_updates))


class EMA:
    """The average itself: a second model in eval mode whose tensors trail the trained ones."""

    def __init__(self, model: nn.Module, config: EMAConfig) -> None:
        self.config = config
        self.num_updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        pairs = list(zip(self.tensors(), model.state_dict().values(), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model (parameters and batch statistics) by one step."""
        self.num_updates += 1
        averages, values = map(list, zip(*self._floats))
        torch._foreach_lerp_(averages, values, 1 - self.config.decay_at(self.num_updates))
        if self._counters:
            torch._foreach_copy_(*map(list, zip(*self._counters)))

    def tensors(self) -> list[Tensor]:
        """The averaged tensors, in state-dict order."""
        return list(self.model.state_dict().values())
