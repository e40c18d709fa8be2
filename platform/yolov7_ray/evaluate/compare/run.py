"""One of the runs that are compared, from its results.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from ... import storage
from ...errors import JobError, NotFound
from ...jobs.kinds import KINDS

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A run of a train or of an evaluate job that has been evaluated."""

    letter: str
    """What it is called in tables."""
    uri: str
    results: Mapping[str, Any]
    """results.json."""

    @property
    def name(self) -> str:
        return self.uri.rsplit("/", 1)[-1]

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.results["spec"]

    @property
    def rows(self) -> Sequence[Row]:
        """Of its epochs; of an evaluation none."""
        return self.results.get("epochs", ())

    @property
    def dataset(self) -> str:
        return self.results["dataset"]

    @property
    def fingerprint(self) -> str | None:
        """Of the dataset's content; None: not kept."""
        return self.results.get("dataset_fingerprint")

    @property
    def split(self) -> str:
        """On which it was evaluated."""
        return self.results.get("split") or self.spec["data"]["val_split"]

    @property
    def best_by(self) -> str:
        """The figure that makes an epoch the best."""
        return self.spec.get("checkpoint", {}).get("best_by", "ap")

    @cached_property
    def best(self) -> Row:
        """Of a training: the row of the best saved epoch, or of the best evaluated one while none is saved."""
        best, by = self.results["best"], self.best_by
        return best if best.get(by) is not None else max(
            (row for row in self.rows if "ap" in row), key=lambda row: -1.0 if row.get(by) is None else row[by])

    @property
    def figures(self) -> Row:
        """Of the best epoch, or of the evaluation."""
        return self.best if self.rows else self.results["metrics"]["overall"]

    @property
    def images_per_s(self) -> float | None:
        """Median over the epochs of a training."""
        speeds = [row["images_per_s"] for row in self.rows if "images_per_s" in row]
        return median(speeds) if speeds else None

    @property
    def classes(self) -> Mapping[str, Row]:
        """Class -> its figures after the last evaluation; empty where a resumed run has not repeated it yet."""
        return (self.results["metrics"] or {}).get("per_class", {})

    @property
    def class_names(self) -> Sequence[str]:
        return self.results.get("classes") or list(self.classes)

    @property
    def last_evaluated(self) -> int | None:
        """The epoch that ``classes`` is of; None of an evaluation."""
        return max((row["epoch"] for row in self.rows if "ap" in row), default=None)

    def described(self) -> str:
        """What it is, in a line."""
        where = f"{self.dataset}, split {self.split}"
        if not self.rows:
            return f"evaluation of {self.results['model']} on {where}"
        best = f"best epoch {self.best['epoch']} by {self.best_by}"
        return f"{self.results['architecture']} on {where}; {best}, {self.epochs} epochs"

    @property
    def epochs(self) -> str:
        """How many of how many."""
        return f"{len(self.rows)} of {self.spec['epochs']}" if self.rows else "–"


def read(uri: str, letter: str) -> Run:
    """Read a run. JobError if there is none, if it is of another kind, or if no epoch has been evaluated yet."""
    where = storage.absolute(uri)
    try:
        results = storage.read_json(storage.join(where, "results.json"))
    except NotFound:
        if not storage.exists(where):
            raise JobError(uri, "there is no run", "give the directories of runs, e.g. runs/NAME") from None
        raise JobError(uri, "has no results.json: no epoch has ended, or it is no run of a train or evaluate job",
                       "give the directories of runs, e.g. runs/NAME") from None
    is_ours = isinstance(results, dict) and {"metrics", "spec", "dataset"} <= results.keys() and (
        "best" in results if "epochs" in results else results["metrics"]) and results["spec"].get("kind") in KINDS
    if not is_ours:
        raise JobError(uri, "its results.json is not that of a train or evaluate job", "give runs of such jobs")
    if "epochs" in results and not any("ap" in row for row in results["epochs"]):
        ended = len(results["epochs"])
        raise JobError(uri, f"has no evaluated epoch yet, {ended} ended", "compare it after its first evaluation")
    return Run(letter, where, results)
