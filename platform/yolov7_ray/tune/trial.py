"""One trial: values, how far it has been trained, its row of the table, and which of its checkpoints stay."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .. import storage
from ..errors import NotFound
from ..train.checkpoints import Checkpoints, checkpoint_name
from .search.fronts import non_dominated

Status = Literal["running", "paused", "trained", "failed", "rejected"]
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "gflops", "parameters")
"""Of an epoch's row, those by which trials are compared; AP by class comes as ap/CLASS."""


@dataclass
class Trial:
    """One trial of a search."""

    trial_id: str
    values: dict[str, Any]
    run: str
    """URI of its directory."""
    status: Status = "running"
    epoch: int = 0
    """The rung at which it paused last; 0: none yet."""
    to_epoch: int = 0
    """The rung to which it is trained, or was trained last."""
    figures: dict[str, float | None] = field(default_factory=dict)
    """Known before training, or at ``epoch``."""
    cost: float = 0.0
    """Of one of its epochs, in GFLOPs of forward passes."""
    lost: int = 0
    """How often in a row it was lost, without progress in between."""
    error: str | None = None
    reason: str | None = None
    """Why it was not trained further."""
    job: dict | None = None
    """Of a finalist: its train job; that of a trial follows from its values."""
    has_checkpoints: bool = True
    """Whether its checkpoints were kept."""
    origin: str | None = None
    """URI of another trial's checkpoint from which it goes on, until it has reached its next rung."""
    left: str | None = None
    """URI of the directory in which it was trained before that, whose checkpoints are not needed any more."""
    lineage: list[dict] = field(default_factory=list)
    """Of one that went on from another's weights: trial, after_epoch and values of each part of their training."""
    results: dict | None = None
    """Its results.json, if that was read."""

    def follow(self, donor: "Trial", values: dict[str, Any]) -> None:
        """Go on from the donor's checkpoint at this trial's rung, with these values, in a directory of its own."""
        parts = donor.lineage or [{"trial": donor.trial_id, "after_epoch": 0, "values": donor.values}]
        self.lineage = [*(part for part in parts if part["after_epoch"] < self.epoch),
                        {"trial": self.trial_id, "after_epoch": self.epoch, "values": values}]
        self.origin, self.left = storage.join(donor.run, checkpoint_name(self.epoch)), self.run
        folder, _, _ = self.run.rpartition("/")
        self.run, self.values = f"{folder}/{self.trial_id}-from-epoch-{self.epoch}", values

    @property
    def ap(self) -> float | None:
        """Best AP over its epochs, that of its best checkpoint."""
        return None if self.results is None else self.results["best"].get("ap")

    def read_results(self) -> None:
        """Read its results.json, if there is one."""
        try:
            self.results = storage.read_json(storage.join(self.run, "results.json"))
        except NotFound:
            self.results = None

    def row(self, ended: bool = True) -> dict:
        """Its row of trials.json; ``ended``: the search has, so that what is paused stays so."""
        results = self.results or {}
        epochs = results.get("epochs", [])
        evaluated = [epoch["ap"] for epoch in epochs if epoch.get("ap") is not None]
        best = results.get("best_checkpoint")
        stopped = self.status == "paused" and ended
        return {"trial": self.trial_id, "values": self.values, "status": "stopped" if stopped else self.status,
                "reason": self.reason, "epoch": self.epoch, "rung": self.to_epoch, "figures": dict(self.figures),
                "lineage": self.lineage, "cost": self.cost, "spent": self.cost * self.epoch, "ap": self.ap,
                "last_ap": evaluated[-1] if evaluated else None, "run": self.run, "error": self.error,
                "stopped": self.reason if stopped else None,
                "checkpoint": storage.join(self.run, best) if best and self.has_checkpoints else None,
                "ap50": results.get("best", {}).get("ap50"),
                "gflops": results.get("gflops", self.figures.get("gflops")),
                "parameters": results.get("parameters", self.figures.get("parameters")),
                "epochs": len(epochs) or self.epoch}

    def state(self) -> dict:
        """What is kept in storage."""
        return {key: value for key, value in asdict(self).items() if key not in ("trial_id", "results")}


def figures_of(row: dict) -> dict[str, float | None]:
    """The figures of an epoch's row of metrics."""
    return {name: value for name, value in row.items() if name in FIGURES or name.startswith("ap/")}


# --- checkpoints that stay ------------------------------------------------------------------------------


def dominated(trials: Iterable[Trial], objectives: Mapping[str, str]) -> list[Trial]:
    """The trials that have been trained to the end and than which another such one is better."""
    trained = [trial for trial in trials if trial.status == "trained"]
    points = [[nan_if_none(trial.figures.get(name)) for name in objectives] for trial in trained]
    front = set(non_dominated(points, list(objectives.values())))
    return [trial for number, trial in enumerate(trained) if number not in front]


def remove_dominated(trials: Iterable[Trial], objectives: Mapping[str, str]) -> None:
    """Remove the checkpoints of dominated trials; of those that still run or wait, none."""
    for trial in dominated(trials, objectives):
        if trial.has_checkpoints:
            remove_all(trial)


def remove_all(trial: Trial) -> None:
    """Remove the checkpoints of a trial; its results, report and log stay."""
    Checkpoints(trial.run, 1).keep(())
    trial.has_checkpoints = False


def remove_left(trial: Trial) -> None:
    """Remove the checkpoints of the weights that a trial gave up, once it has some of those that it went on from."""
    if trial.left is not None and trial.origin is None:
        Checkpoints(trial.left, 1).keep(())
        trial.left = None


def keep_best_and_newest(run: str, *others: str) -> None:
    """Remove the other checkpoints of a trial that pauses: one is its result, with one it goes on."""
    results = storage.read_json(storage.join(run, "results.json"))
    Checkpoints(run, 1).keep((results["best_checkpoint"], results["last_checkpoint"], *others))


def nan_if_none(value: float | None) -> float:
    return float("nan") if value is None else value
