"""Learning rate, momentum and accumulation as a pure function of the step, without state to save."""

import math
from dataclasses import dataclass

import torch

from .config import OptimizerConfig


@dataclass(frozen=True)
class Schedule:
    """Learning rates, momentum and accumulation at every step of a run.

    A step is one batch over all workers; an update follows every ``accumulation(step)`` steps.
    """

    config: OptimizerConfig
    epochs: int
    steps_per_epoch: int
    batch_size: int
    nominal_batch_size: int

    @property
    def warmup_steps(self) -> int:
        total = self.epochs * self.steps_per_epoch
        return max(round(self.config.warmup_epochs * self.steps_per_epoch), min(1000, total // 10))

    def decay(self, epoch: float) -> float:
        """Factor on the peak learning rate: from 1 to the final ratio, by a half cosine or a line."""
        passed = epoch / self.epochs
        if self.config.schedule == "cosine":
            passed = (1 - math.cos(passed * math.pi)) / 2
        return passed * (self.config.final_learning_rate_ratio - 1) + 1

    def accumulation(self, step: int) -> int:
        """Batches per update: rises with warmup from 1 to nominal / batch size."""
        full = max(1, round(self.nominal_batch_size / self.batch_size))
        if step >= self.warmup_steps:
            return full
        return max(1, round(1 + (full - 1) * step / self.warmup_steps))

    def updates_after(self, step: int, steps_since_update: int) -> bool:
        """Whether the optimizer steps now, ``steps_since_update`` batches after its last; always at an epoch's end."""
        return steps_since_update >= self.accumulation(step) or (step + 1) % self.steps_per_epoch == 0

    def apply(self, optimizer: torch.optim.Optimizer, step: int, factor: float = 1.0) -> None:
        """Set the learning rate, times ``factor``, and momentum of every parameter group for this step."""
        config = self.config
        target = factor * config.learning_rate * self.decay(step / self.steps_per_epoch)
        progress = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        momentum = config.warmup_momentum + (config.momentum - config.warmup_momentum) * progress
        for group in optimizer.param_groups:
            start = config.warmup_bias_learning_rate if group["role"] == "bias" else 0.0
            group["lr"] = start + (target - start) * progress
            if "momentum" in group:
                group["momentum"] = momentum
            else:
                group["betas"] = (momentum, group["betas"][1])
