"""What the rules of a search know of its trials; and the simplest rule: each is trained to its end at once."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Train ``trial``, None: a new one, up to the end of ``to_epoch``."""

    trial: str | None
    to_epoch: int
    donor: str | None = None
    """It goes on from the checkpoint of this trial at the same epoch, with values near to its."""


class Records:
    """Figures of trials at their rungs. The same calls in the same order give the same decisions."""

    def __init__(self, rungs: Sequence[int], objectives: Mapping[str, str], *, trials: int, state: dict | None = None,
                 ) -> None:
        """``rungs``: epochs, ascending, the last one all of a trial. ``objectives``: figure -> "max" or "min".

        ``trials``: most that begin. ``state``: that of an earlier search, which this one continues.
        """
        self.rungs, self.objectives, self.trials = list(rungs), dict(objectives), trials
        self._trials: dict[str, dict] = copy.deepcopy((state or {}).get("trials", {}))

    def record(self, trial: str, epoch: int, figures: Mapping[str, float | None], cost: float,
               values: Mapping[str, object] | None = None) -> None:
        """``trial`` has trained up to the rung ``epoch`` and pauses; ``cost``: of one of its epochs, in any unit.

        ``values``: what the search sets for it (JSON); trials with similar ones are expected to end similarly.
        """
        found = self._trials.setdefault(trial, {"cost": None, "figures": {}, "lost": False})
        found |= {"cost": float(cost), "values": dict(values or {}), "lost": False}
        found["figures"][str(epoch)] = {name: figures.get(name) for name in self.objectives}

    def lost(self, trial: str) -> None:
        """``trial`` has failed for good."""
        self._trials.setdefault(trial, {"cost": None, "figures": {}, "lost": True})["lost"] = True

    def state(self) -> dict:
        """What is kept in storage, as JSON."""
        return {"trials": self._trials}

    def spent(self) -> float:
        """Compute of all recorded epochs, in the unit of ``cost``."""
        return sum(self._cost(trial) * self._epoch(trial) for trial in self._trials)

    def next(self, running: Mapping[str, int], can_propose: bool) -> Step | None:
        """What to start now, beside the ``running`` trials (trial -> the rung it trains to); None: nothing.

        None with nothing running means that the search is over.
        """
        return Step(None, self.rungs[-1]) if can_propose else None

    def reason(self, trial: str) -> str | None:
        """Why ``trial`` pauses, in a short sentence; None where it does not."""
        return None

    def _epoch(self, trial: str) -> int:
        """Last rung that ``trial`` has reached; 0: none."""
        return max(map(int, self._trials.get(trial, {}).get("figures", ())), default=0)

    def _mean_cost(self) -> float:
        costs = [found["cost"] for found in self._trials.values() if found["cost"]]
        return sum(costs) / len(costs) if costs else 1.0

    def _cost(self, trial: str) -> float:
        return self._trials.get(trial, {}).get("cost") or self._mean_cost()

    def _paused(self) -> list[str]:
        return [trial for trial, found in self._trials.items()
                if found["figures"] and not found["lost"] and self._epoch(trial) < self.rungs[-1]]

    def _following(self, epoch: int) -> int:
        """The rung after an epoch."""
        return next(rung for rung in self.rungs if rung > epoch)

    def _figure(self, trial: str, rung: int, name: str) -> float:
        """A figure at a rung; NaN before it is reached or where it was reached without."""
        value = self._trials[trial]["figures"].get(str(rung), {}).get(name)
        return math.nan if value is None else value
