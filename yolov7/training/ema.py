"""Exponential moving average of a model: the weights that are evaluated, saved and served."""

import copy

import torch
from torch import Tensor, nn

from .config import EMAConfig


class EMA:
    """A second model in eval mode whose tensors are the moving average of the trained ones."""

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
