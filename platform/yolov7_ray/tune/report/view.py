"""A search at one moment, as tables and pages show it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...jobs.page.figures import duration, number  # noqa: F401  (for those who show a view)
from ..search.fronts import non_dominated
from ..spec import TuneSpec

STATUSES = ("running", "paused", "trained", "stopped", "rejected", "failed")
_LABELS = {"ap": "AP", "gflops": "GFLOPs", "latency_ms": "latency ms", "latency_batch_ms": "batch latency ms"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class SearchView:
    """All that is shown of a search."""

    spec: TuneSpec
    rows: Sequence[Row]
    """Rows of trials.json: trial, values, status, reason, epoch, figures, cost (of one epoch), spent, run, …"""
    elapsed_s: float = 0.0
    """How long the search has run in all."""
    run: str = ""
    history: Sequence[Sequence] = ()
    """[spent in all, trial, epoch] of every rung that was reached, in order."""

    @property
    def objectives(self) -> Mapping[str, str]:
        return self.spec.objectives

    @property
    def leading(self) -> str:
        """The first objective, by which tables are sorted."""
        return next(iter(self.objectives))

    @cached_property
    def counts(self) -> Counter[str]:
        """Trials by status, finalists apart."""
        return Counter(row["status"] for row in self.rows if "finalist" not in row)

    @cached_property
    def finalists(self) -> list[Row]:
        """What is trained anew after the search, the best first."""
        return [row for row in self.rows if "finalist" in row]

    @property
    def num_trials(self) -> int:
        """Most trials that this search begins."""
        return max(self.spec.budget.trials, self.num_begun)

    @property
    def num_begun(self) -> int:
        """Trials that have begun: neither rejected before, nor finalists, which are trained anew."""
        return sum(self.counts.values()) - self.counts["rejected"]

    @cached_property
    def front(self) -> list[Row]:
        """Fully trained trials that no other fully trained one dominates, the best by the first objective first.

        Where there are finalists, which were trained longer, of those alone.
        """
        finalists = [row for row in self.finalists if row["status"] == "finalist"]
        if finalists and len(self.objectives) == 1:
            return [self.best]  # of those within the noise the cheapest
        return self._front_of(finalists or [row for row in self.rows if row["status"] == "trained"])

    @cached_property
    def hopeful(self) -> list[Row]:
        """Trials that are not fully trained, and that none dominates as far as they have come."""
        if self.finalists:
            return []
        known = [row for row in self.rows if row["status"] in ("trained", "running", "paused", "stopped")]
        return [row for row in self._front_of(known) if row["status"] != "trained"]

    @property
    def best(self) -> Row | None:
        """The best finalist, else the best fully trained trial by the first objective, else the best so far."""
        finalists = [row for row in self.finalists if row["status"] == "finalist"]
        if finalists:
            return min(finalists, key=lambda row: row["place"])
        known = self.front or [row for row in self.ranked if self.value(row, self.leading) is not None]
        return known[0] if known else None

    @cached_property
    def ranked(self) -> list[Row]:
        """All rows by the first objective, the best first, those without it last; finalists before all."""
        return sorted(self.rows, key=lambda row: ("finalist" not in row, self._rank(row), row["trial"]))

    @property
    def spent(self) -> float:
        """Compute of all trials, in the unit of the rows' cost."""
        return sum(row.get("spent") or 0.0 for row in self.rows)

    @property
    def full(self) -> float | None:
        """Compute of training every trial in full; those that have not begun cost as much as the others do."""
        mean = self._mean_cost(self.rows)
        return mean * self.num_trials * self.spec.train.epochs if mean else None

    @property
    def budget(self) -> float | None:
        """Compute that this search may take; None: not known yet."""
        return None if self.full is None else self.full * self.spec.share

    @property
    def eta_s(self) -> float | None:
        """Seconds until the budget is used up and the finalists are trained, at the speed so far; None: not known yet.
        """
        hours, (done, to_come) = self.spec.budget.hours, self._finalists_compute
        if not self.budget or not self.spent or not self.elapsed_s:
            return None
        seconds = self.elapsed_s / (self.spent + done)
        left = 0.0 if self.finalists else max(0.0, self.budget - self.spent) * seconds
        return (left if hours is None else min(left, max(0.0, hours * 3600 - self.elapsed_s))) + to_come * seconds

    @property
    def _finalists_compute(self) -> tuple[float, float]:
        """Compute that finalists have taken and will take; of those that are not known yet, as the front's models do."""
        if self.finalists:
            costs = {row["trial"]: row.get("cost") or 0.0 for row in self.rows}
            done, left = (sum(row[key] * costs[row["finalist"]] for row in self.finalists)
                          for key in ("epochs_done", "epochs_left"))
            return done, left
        if (finalists := self.spec.finalists) is None:
            return 0.0, 0.0
        epochs = finalists.epochs or self.spec.train.epochs
        anew = finalists.seeds - (epochs == self.spec.train.epochs)  # the trial itself is one of them
        return 0.0, anew * finalists.count * epochs * self._mean_cost(self.front or self.rows)

    @staticmethod
    def _mean_cost(rows: Sequence[Row]) -> float:
        """Of an epoch; 0: not known."""
        costs = [row["cost"] for row in rows if row.get("cost")]
        return sum(costs) / len(costs) if costs else 0.0

    def value(self, row: Row, figure: str) -> float | None:
        """A figure of a trial as far as it has come."""
        return row.get("figures", {}).get(figure)

    def _rank(self, row: Row) -> float:
        value = self.value(row, self.leading)
        return float("inf") if value is None else -value if self.objectives[self.leading] == "max" else value

    def _front_of(self, rows: Sequence[Row]) -> list[Row]:
        points = {number: [self.value(row, figure) for figure in self.objectives] for number, row in enumerate(rows)}
        known = [number for number, point in points.items() if None not in point]
        front = non_dominated([points[number] for number in known], list(self.objectives.values()))
        return sorted((rows[known[index]] for index in front), key=lambda row: (self._rank(row), row["trial"]))


def descent(row: Row) -> str:
    """From whose weights a trial of a population went on, in words; empty: from none."""
    parts = row.get("lineage") or ()
    told = [f"{before['trial']} to epoch {part['after_epoch']}" for before, part in zip(parts, parts[1:])]
    return f"weights of {', '.join(told)}" if told else ""


def label(figure: str) -> str:
    """A figure as people write it: AP50, AP small, GFLOPs."""
    return _LABELS.get(figure) or figure.replace("ap/", "AP of ").replace("ap", "AP").replace("_", " ")


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Dotted path -> its last key, or the whole path where two end alike."""
    last = Counter(path.rpartition(".")[2] for path in paths)
    return {path: path if last[path.rpartition(".")[2]] > 1 else path.rpartition(".")[2] for path in paths}
