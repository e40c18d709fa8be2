"""The optimizer, and its schedule as a pure function of the step: nothing to save, nothing to lose."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class OptimizerConfig:
    """Update rule and learning-rate schedule."""

    algorithm: Literal["sgd", "adam", "adamw"] = "sgd"
    """SGD with Nesterov momentum (the paper's), Adam or AdamW."""
    learning_rate: float = 0.01
    """Peak learning rate, for the nominal batch size."""
    final_learning_rate_ratio: float = 0.1
    """Learning rate at the end over the peak."""
    momentum: float = 0.937
    """SGD momentum, or Adam's beta1."""
    weight_decay: float = 0.0005
    """L2 penalty of convolution weights, for the nominal batch size; biases and norms have none."""
    warmup_epochs: float = 3.0
    """Epochs of linear warmup; at least 1000 steps, unless that were over a tenth of the run."""
    warmup_momentum: float = 0.8
    """Momentum at the start of warmup."""
    warmup_bias_learning_rate: float = 0.1
    """Learning rate of biases at the start of warmup; that of all else starts at 0."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate: {self.learning_rate} is not positive")
        for name in ("weight_decay", "warmup_epochs", "warmup_bias_learning_rate", "final_learning_rate_ratio"):
            if getattr(self, name) < 0:
                raise ValueError(f"optimizer.{name}: {getattr(self, name)} is negative")
        for name in ("momentum", "warmup_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name}: {getattr(self, name)} is outside [0, 1)")


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

    def cosine(self, epoch: float) -> float:
        """Factor on the peak learning rate: a half cosine from 1 to the final ratio."""
        final = self.config.final_learning_rate_ratio
        return (1 - math.cos(epoch * math.pi / self.epochs)) / 2 * (final - 1) + 1

    def accumulation(self, step: int) -> int:
        """Batches per update: rises with warmup from 1 to nominal / batch size."""
        full = max(1, round(self.nominal_batch_size / self.batch_size))
        if step >= self.warmup_steps:
            return full
        return max(1, round(1 + (full - 1) * step / self.warmup_steps))

    def updates_after(self, step: int, since_update: int) -> bool:
        """Whether the optimizer steps now, ``since_update`` batches after its last; always at an epoch's end."""
        return since_update >= self.accumulation(step) or (step + 1) % self.steps_per_epoch == 0

    def apply(self, optimizer: torch.optim.Optimizer, step: int, factor: float = 1.0) -> None:
        """Set the learning rate, times ``factor``, and momentum of every parameter group for this step."""
        config = self.config
        target = factor * config.learning_rate * self.cosine(step / self.steps_per_epoch)
        progress = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        momentum = config.warmup_momentum + (config.momentum - config.warmup_momentum) * progress
        for group in optimizer.param_groups:
            start = config.warmup_bias_learning_rate if group["role"] == "bias" else 0.0
            group["lr"] = start + (target - start) * progress
            if "momentum" in group:
                group["momentum"] = momentum
            else:
                group["betas"] = (momentum, group["betas"][1])


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by role: ``weight`` (decayed), ``scale`` (norms and implicit vectors) and ``bias``."""
    groups: dict[str, list[nn.Parameter]] = {"weight": [], "scale": [], "bias": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith("bias"):
            groups["bias"].append(parameter)
        elif parameter.ndim == 4 and name.endswith("weight"):
            groups["weight"].append(parameter)
        else:
            groups["scale"].append(parameter)
    return groups


def build_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimizer over the three parameter groups, its decay scaled to the images per update."""
    config = schedule.config
    images_per_update = schedule.batch_size * max(1, round(schedule.nominal_batch_size / schedule.batch_size))
    decay = config.weight_decay * images_per_update / schedule.nominal_batch_size
    groups = [
        {"params": parameters, "role": role, "weight_decay": decay if role == "weight" else 0.0}
        for role, parameters in parameter_groups(model).items() if parameters
    ]
    if config.algorithm == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True, fused=True)
    adam = torch.optim.AdamW if config.algorithm == "adamw" else torch.optim.Adam
    return adam(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)
