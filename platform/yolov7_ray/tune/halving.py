"""Asynchronous successive halving: which trials end early, and why."""

import math
from dataclasses import dataclass, field

import numpy as np


def rungs(first: int, reduction: int, epochs: int, every: int = 1) -> list[int]:
    """Epochs at which trials are compared: ``first`` times powers of ``reduction``, each the next evaluated epoch.

    None at a trial's own end, ``epochs``. ``every``: so many epochs lie between two evaluations.
    """
    found, rung = set(), first
    while rung < epochs:
        found.add(math.ceil(rung / every) * every)
        rung *= reduction
    return sorted(epoch for epoch in found if epoch < epochs)


@dataclass
class Halving:
    """At each rung a trial goes on if its AP reaches what the best 1 / ``reduction`` of those before it have."""

    reduction: int
    rungs: list[int]
    recorded: dict[str, dict[str, float]] = field(default_factory=dict)
    """Rung -> trial -> AP."""
    stopped: dict[str, dict] = field(default_factory=dict)
    """Trial -> {"epoch": its last, "reason": why}."""

    def decide(self, trial: str, epoch: int, ap: float | None) -> str | None:
        """Why ``trial`` ends after ``epoch``; None: it goes on. ``ap`` None: whether it was told so before.

        A trial that was lost and trains an epoch again gets the same answer.
        """
        if trial in self.stopped:
            return self.stopped[trial]["reason"] if epoch >= self.stopped[trial]["epoch"] else None
        rung = max((rung for rung in self.rungs if rung <= epoch), default=None)
        if ap is None or rung is None or trial in (at_rung := self.recorded.setdefault(str(rung), {})):
            return None
        others = list(at_rung.values())
        at_rung[trial] = ap
        if not others or ap >= (needed := float(np.percentile(others, 100 * (1 - 1 / self.reduction)))):
            return None
        reason = (f"AP {ap:.4g} at epoch {epoch} is below {needed:.4g}, from which on a trial is among the best "
                  f"1/{self.reduction} of the {len(others)} before it")
        self.stopped[trial] = {"epoch": epoch, "reason": reason}
        return reason

    def state(self) -> dict:
        """What is kept in storage."""
        return {"recorded": self.recorded, "stopped": self.stopped}
