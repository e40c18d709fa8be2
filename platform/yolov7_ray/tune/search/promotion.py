"""Which trials of a search are trained on: successive halving by promotion, for one or several objectives.

A trial trains up to a rung and pauses there. What each would reach at its end is forecast; of those whose ends fit
into what is left of the compute, those are chosen that are expected to add most, together, to the hypervolume of the
fully trained trials, and the first of them is promoted by one rung (ASHA, Li et al. 2018; for several objectives,
Schmucker et al. 2021; freeze-thaw, Swersky et al. 2014). After each rung the choice is made anew.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .expectation import best_plan, exceeds, points_along
from .forecast import encode, forecast
from .fronts import SIGN
from .records import Records, Step

STATIC = frozenset({"gflops", "parameters", "latency_ms", "latency_batch_ms"})
"""Figures that a trial has before it is trained."""
MARGIN = 0.1
"""How far the reference point lies beyond the worst static figure, in the range of those."""
FIRST_SHARE = 0.5
"""Most of the share that may go into first rungs."""
GOES_ON = 0.6
"""How probable it is taken to be that a promoted trial is promoted again at its next rung."""

ROUNDING = 1e-9
"""By how much of it a budget may be exceeded: sums of the same costs differ by order."""


def rungs(first: int, reduction: int, epochs: int, every: int = 1) -> list[int]:
    """Epochs at which trials pause: ``first`` times powers of ``reduction``, each the next evaluated one, and the last.

    None lies nearer to the last, in ratios, than half of the way to the rung before. ``every``: so many epochs lie
    between two evaluations.
    """
    found, rung = {epochs}, first
    while (epoch := math.ceil(rung / every) * every) ** 2 * reduction <= epochs ** 2:
        found.add(epoch)
        rung *= reduction
    return sorted(found)


def halving_share(rungs: Sequence[int], reduction: int) -> float:
    """Share of the full sweep's compute if one in ``reduction`` goes on at each rung."""
    steps = np.diff([0, *rungs])
    return float(sum(step / reduction ** number for number, step in enumerate(steps)) / rungs[-1])


class Promotion(Records):
    """Decides for all trials of a search."""

    def __init__(self, rungs: Sequence[int], objectives: Mapping[str, str], *, reduction: int, trials: int,
                 share: float | None, state: dict | None = None) -> None:
        """``share``: of the compute that training ``trials`` in full takes; None: that of successive halving, where one
        in ``reduction`` goes on at each rung.
        """
        super().__init__(rungs, objectives, trials=trials, state=state)
        self.share = halving_share(self.rungs, reduction) if share is None else share
        self._order: list[str] | None = None
        """Paused trials, most valuable first; None: to be found again."""

    def record(self, trial: str, epoch: int, figures: Mapping[str, float | None], cost: float,
               values: Mapping[str, object] | None = None) -> None:
        super().record(trial, epoch, figures, cost, values)
        self._order = None

    def lost(self, trial: str) -> None:
        super().lost(trial)
        self._order = None

    def budget(self, trials: int | None = None) -> float:
        """Compute that may be spent on so many trials, default all, as far as those so far tell what one costs."""
        return self.share * (self.trials if trials is None else trials) * self._mean_cost() * self.rungs[-1]

    def next(self, running: Mapping[str, int], can_propose: bool) -> Step | None:
        """Running trials hold what they take to their end: as long as nothing new is known of them, only as many are
        promoted as can end. A search ends with a fully trained trial even if its share is less than that takes.
        """
        begun = len(self._trials.keys() | running.keys())
        if can_propose and begun < self._num_begin():
            return Step(None, self.rungs[0])
        if any(not self._epoch(trial) for trial in running):
            return None  # first rungs are short, and after them all trials can be compared
        reserved = sum(map(self._to_end, running))  # else many workers promote all before anything new is known
        left = self.budget(None if can_propose else min(begun, self.trials)) * (1 + ROUNDING) - self.spent() - reserved
        paused = [trial for trial in self._paused() if trial not in running]
        if paused and not running and not self._finished():
            left = max(left, min(map(self._to_end, paused)))
        if plan := self._plan(paused, running, left):
            return Step(plan[0], self._following(self._epoch(plan[0])))
        return None

    def reason(self, trial: str) -> str | None:
        if trial not in (paused := self._paused()):
            return None
        if self._order is None:
            self._order = self._plan(paused, {}, math.inf)
        return (f"paused after epoch {self._epoch(trial)}: {self._order.index(trial) + 1} of {len(paused)} by what its "
                "end is expected to add")

    # --- what is known ------------------------------------------------------------------------------

    def _to_end(self, trial: str) -> float:
        return self._cost(trial) * (self.rungs[-1] - self._epoch(trial))

    def _price(self, trial: str) -> float:
        """Compute that ``trial`` is expected to take still: it may be left behind at each rung."""
        epoch, probability, epochs = self._epoch(trial), 1.0, 0.0
        for rung in self.rungs:
            if rung > epoch:
                epochs += probability * (rung - epoch)
                epoch, probability = rung, probability * GOES_ON
        return self._cost(trial) * epochs

    def _finished(self) -> list[str]:
        return [trial for trial in self._trials if self._epoch(trial) >= self.rungs[-1]]

    def _num_begin(self) -> int:
        """How many trials begin: all, unless their first rungs alone would take too much of the share."""
        return max(1, min(self.trials, int(FIRST_SHARE * self.share * self.trials * self.rungs[-1] / self.rungs[0])))

    # --- what is expected ---------------------------------------------------------------------------

    def _plan(self, paused: Sequence[str], running: Mapping[str, int], left: float) -> list[str]:
        """Those of the paused trials, first the one to promote, whose ends fit into ``left`` and add most, together."""
        paused = [trial for trial in paused if self._to_end(trial) <= left]
        if not paused:
            return []
        names = [trial for trial, found in self._trials.items() if found["figures"]]
        dominates = dict(zip(names, self._dominates(names)))
        taken = [dominates[trial] for trial in names if trial in running or self._epoch(trial) >= self.rungs[-1]]
        uncovered = np.prod(1 - np.array(taken), axis=0) if taken else np.ones(len(dominates[names[0]]))
        plan = best_plan(np.array([dominates[trial] for trial in paused]), uncovered,
                         np.array([self._price(trial) for trial in paused]), left)
        return [paused[index] for index in plan]

    def _dominates(self, names: Sequence[str]) -> np.ndarray:
        """(N, S): probability that each trial's end dominates each of points spread evenly over the objectives."""
        costs = np.array([self._cost(trial) for trial in names])
        features = encode([self._trials[trial]["values"] for trial in names], costs)
        probability = 1.0
        for axis, (name, direction) in enumerate(self.objectives.items()):
            figures = np.array([[self._figure(trial, rung, name) for rung in self.rungs] for trial in names])
            of = static_figure if name in STATIC else learnt_figure
            probability = probability * of(figures, SIGN[direction], costs, features, points_along(axis))
        return probability


def static_figure(figures: np.ndarray, sign: float, costs: np.ndarray, features: np.ndarray, along: np.ndarray,
                  ) -> np.ndarray:
    """(N, S) 0 or 1: whether a figure that training does not change is as good as each point; unknown ones are not."""
    value = sign * np.nanmax(np.column_stack([figures, np.full(len(figures), -np.inf)]), axis=1)
    known = value[np.isfinite(value)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    margin = MARGIN * (high - low) or 1.0
    return (value[:, None] >= low - margin + (high - low + margin) * along).astype(np.float64)


def learnt_figure(figures: np.ndarray, sign: float, costs: np.ndarray, features: np.ndarray, along: np.ndarray,
                  ) -> np.ndarray:
    """(N, S) probability that a figure will be, at the last rung, as good as each point.

    Figures that are never negative are forecast by their cube root: early ones differ by orders of magnitude.
    """
    known = figures[~np.isnan(figures)]
    if not len(known):
        return np.ones((len(figures), len(along)))
    worst = (sign * known).min()
    power = 3 if known.min() >= 0 else 1
    if power == 3 and sign > 0:
        worst = 0.0
    root = np.cbrt if power == 3 else np.positive
    reached = np.where(np.isnan(figures), np.nan, figures)
    lacking = np.isnan(figures).all(1)
    reached[lacking, 0] = sign * worst
    mean, deviation = forecast(sign * root(reached), costs, features)
    best = np.max(mean + 2 * deviation)
    points = worst + (max(best, root(worst) + 1e-9) ** power - worst) * along
    return exceeds(mean, deviation, root(points))
