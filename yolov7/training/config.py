"""Hyperparameters of the update rule, its schedule and the moving average."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OptimizerConfig:
    """Update rule and learning-rate schedule."""

    algorithm: Literal["sgd", "adam", "adamw"] = "sgd"
    """SGD with Nesterov momentum (the paper's), Adam or AdamW."""
    learning_rate: float = 0.01
    """Peak learning rate, for the nominal batch size."""
    final_learning_rate_ratio: float = 0.1
    """Learning rate at the end over the peak."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How the learning rate falls from its peak to its end."""
    momentum: float = 0.937
    """SGD momentum, or Adam's beta1."""
    weight_decay: float = 0.0005
    """L2 penalty of convolution weights at up to 64 images per batch; in proportion to the batch above (128: twice
    this). Biases and norms have none."""
    warmup_epochs: float = 3.0
    """Epochs of linear warmup; at least 1000 steps, unless that were over a tenth of the run."""
    warmup_momentum: float = 0.8
    """Momentum at the start of warmup."""
    warmup_bias_learning_rate: float = 0.1
    """Learning rate of biases at the start of warmup; that of all else starts at 0."""
    clip_norm: float = 0.0
    """Largest norm of the gradient of an update, which is a sum over its images; longer ones are shortened. 0: any."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate: {self.learning_rate} is not positive")
        for name in ("weight_decay", "warmup_epochs", "warmup_bias_learning_rate", "final_learning_rate_ratio",
                     "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"optimizer.{name}: {getattr(self, name)} is negative")
        for name in ("momentum", "warmup_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name}: {getattr(self, name)} is outside [0, 1)")


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
