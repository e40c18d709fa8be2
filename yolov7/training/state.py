"""Everything that training changes, and how it is saved and resumed, also in the middle of an epoch.

A saved state is a directory: ``model.safetensors`` (trained weights), ``ema.safetensors`` (their average, with the
architecture in its metadata: a self-describing model file) and ``state.pt`` (optimizer and counters, readable
by ``torch.load(weights_only=True)``). Nothing in it needs pickle to execute code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..architectures.family import Architecture
from ..checkpoints.weights import load_weights, save_model
from ..model.detector import build_model
from .config import EMAConfig
from .ema import EMA
from .freeze import freeze
from .optimizer import build_optimizer
from .schedule import Schedule


TERMS = ("box", "objectness", "classification")
"""Of the loss."""


@dataclass
class TrainState:
    """Model, average, optimizer and position of one training run."""

    model: nn.Module
    ema: EMA
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    classes: list[str]
    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Steps completed of the current epoch."""
    totals: torch.Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    """Of the current epoch, over all workers: box, objectness and class loss times images, and images."""
    skipped_updates: int = 0
    """Updates skipped so far because loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    """Number of the most recent updates skipped in a row."""
    learning_rate_factor: float = 1.0
    """Factor on the schedule's learning rate; lowered when the run had to be rolled back."""
    history: list[dict] = field(default_factory=list)
    """One row of metrics per completed epoch."""
    image_size_px: int | None = None
    """Longer side of the images, written into the model files."""
    node_of_part: list[int] | None = None
    """Of the current epoch: the node that each part of a global batch was dealt to, where the order depends on it."""

    @property
    def position(self) -> int:
        """Steps completed since the start of the run."""
        return self.epoch * self.schedule.steps_per_epoch + self.step

    def mean_losses(self) -> dict[str, float]:
        """Mean loss terms of the current epoch up to the last update; empty before the first."""
        *sums, num_images = self.totals.tolist()
        return {name: value / num_images for name, value in zip(TERMS, sums)} if num_images else {}

    @classmethod
    def build(cls, architecture: Architecture, classes: list[str], schedule: Schedule, ema: EMAConfig,
              device: torch.device | str = "cpu", initial: Mapping[str, torch.Tensor] | None = None,
              frozen: Sequence[str] = (), image_size_px: int | None = None) -> "TrainState":
        """A new state; ``initial`` weights replace the random ones wherever name and shape agree.

        The modules named in ``frozen`` are not trained: no gradient, no update, fixed batch statistics.
        """
        model = build_model(architecture, num_classes=len(classes))
        if initial is not None:
            transfer_weights(model, initial)
        freeze(model, frozen)
        model = model.to(device, memory_format=torch.channels_last)
        return cls(model, EMA(model, ema), build_optimizer(model, schedule), schedule, list(classes),
                   image_size_px=image_size_px)

    def save(self, directory: str | Path) -> None:
        """Write the state into ``directory``."""
        self.snapshot().save(directory)

    def snapshot(self) -> "Snapshot":
        """A copy in host memory of all that is saved, so that training can continue while it is written."""
        counters = {name: getattr(self, name) for name in COUNTERS}
        return Snapshot(self.epoch, self.step, self.model, self.classes, self.image_size_px, *map(to_host, (
            self.model.state_dict(), self.ema.model.state_dict(),
            {**counters, "optimizer": self.optimizer.state_dict(), "ema_updates": self.ema.num_updates,
             "classes": self.classes})))

    def load(self, directory: str | Path) -> None:
        """Restore the state saved in ``directory``; ValueError if it belongs to another model or classes."""
        directory = Path(directory)
        counters = torch.load(directory / "state.pt", map_location="cpu", weights_only=True)
        if counters["classes"] != self.classes:
            raise ValueError(f"checkpoint {directory.name}: was trained for classes {counters['classes']}, "
                             f"the dataset has {self.classes}; give the dataset of that run")
        for model, name in ((self.model, "model.safetensors"), (self.ema.model, "ema.safetensors")):
            load_exactly(model, load_weights(directory / name)[0], directory.name)
        decays = [group["weight_decay"] for group in self.optimizer.param_groups]  # this run's, as is its schedule
        self.optimizer.load_state_dict(counters["optimizer"])
        for group, decay in zip(self.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        self.ema.num_updates = counters["ema_updates"]
        for name in COUNTERS:
            setattr(self, name, counters.get(name))  # node_of_part: none in earlier checkpoints


COUNTERS = ("epoch", "step", "totals", "skipped_updates", "skipped_in_a_row", "learning_rate_factor", "history",
            "node_of_part")


@dataclass(frozen=True)
class Snapshot:
    """A state as it was at one moment."""

    epoch: int
    step: int
    model: nn.Module
    """Only for its architecture; its weights may have changed since."""
    classes: list[str]
    image_size_px: int | None
    weights: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizer_and_counters: dict

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors that `save` writes."""
        return sum(num_bytes(part) for part in (self.weights, self.average, self.optimizer_and_counters))

    def save(self, directory: str | Path) -> None:
        """Write it into ``directory``."""
        directory = Path(directory)
        for name, weights in (("model.safetensors", self.weights), ("ema.safetensors", self.average)):
            save_model(directory / name, self.model, self.classes, weights, image_size_px=self.image_size_px)
        torch.save(self.optimizer_and_counters, directory / "state.pt")


def num_bytes(value) -> int:
    """Bytes of all tensors in nested containers."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(num_bytes, items))


def to_host(value):
    """A copy of ``value`` whose tensors are in host memory and share it with nothing else."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: to_host(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(to_host, value))
    return value


def load_exactly(model: nn.Module, weights: dict[str, torch.Tensor], where: str) -> None:
    """Load ``weights`` into ``model``; ValueError with counts and names of what does not fit."""
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    misshapen = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or unexpected or misshapen:
        problems = [f"{len(names)} {what} (e.g. {names[0]})" for names, what in
                    ((missing, "missing"), (unexpected, "unexpected"), (misshapen, "of another shape")) if names]
        raise ValueError(f"checkpoint {where}: is of another architecture: {', '.join(problems)}; "
                         "give model.architecture, depth and width of the run that wrote it")
    model.load_state_dict(weights)


def transfer_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> int:
    """Copy every tensor whose name and shape agree and return their number; ValueError as `fitting_weights`."""
    fitting = fitting_weights(model, weights)
    model.load_state_dict(model.state_dict() | fitting)
    return len(fitting)


def fitting_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that a model can start from; ValueError if they are folded or fewer than half of its own.

    Layers that depend on the class count stay as initialised, so a model can start from one trained on other
    classes. Anchors are not weights: the model keeps those of its architecture.
    """
    own = model.state_dict()
    if any(name.endswith("conv.bias") for name in weights) and not any("running_mean" in name for name in weights):
        raise ValueError("model.weights: are folded: their batch norms are gone, and training needs them; "
                         "give the run or checkpoint that was published, or weights in training form")
    fitting = {name: value for name, value in weights.items()
               if name in own and own[name].shape == value.shape and name != "anchors_px"}
    if len(fitting) < len(own) / 2:
        raise ValueError(f"model.weights: only {len(fitting)} of {len(own)} tensors fit this architecture; "
                         "give weights of the same architecture, depth and width")
    return fitting
