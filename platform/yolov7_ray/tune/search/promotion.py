"""Which trials of a search are trained on: successive halving by promotion, for one or several objectives.

A trial trains up to a rung and pauses there. What each would reach at its end is forecast, and the one is promoted
that is expected to add most to the hypervolume of the fully trained trials for the compute that its end takes, as long
as the share of the compute lasts (freeze-thaw, Swersky et al. 2014; multi-objective ASHA, Schmucker et al. 2021).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .forecast import forecast
from .fronts import SIGN

STATIC = frozenset({"gflops", "parameters", "latency_ms", "latency_batch_ms"})
"""Figures that a trial has before it is trained."""
ROOT = 1 / 3
"""Power of a learnt figure in which it is forecast: early values differ by orders of magnitude."""
NUM_SAMPLES = 512
"""Points of objective space by which hypervolumes are estimated."""
MARGIN = 0.1
"""How far the reference point lies beyond the worst static figure, in the range of those."""
FIRST_SHARE = 0.5
"""Most of the share that may go into first rungs."""


@dataclass(frozen=True)
class Step:
    """Train ``trial``, None: a new one, up to the end of ``to_epoch``."""

    trial: str | None
    to_epoch: int


def rungs(first: int, reduction: int, epochs: int, every: int = 1) -> list[int]:
    """Epochs at which trials pause: ``first`` times powers of ``reduction``, each the next evaluated one, and the last.

    None lies so near the last that a step from it would be less than a step to it, in ratios. ``every``: so many epochs
    lie between two evaluations.
    """
    found, rung = {epochs}, first
    while (epoch := math.ceil(rung / every) * every) ** 2 * reduction <= epochs ** 2:
        found.add(epoch)
        rung *= reduction
    return sorted(found)


class Promotion:
    """Decides for all trials of a search; the same calls in the same order give the same decisions."""

    def __init__(self, rungs: Sequence[int], objectives: Mapping[str, str], *, reduction: int, trials: int,
                 share: float | None, state: dict | None = None) -> None:
        """``rungs``: epochs, ascending, the last one all of a trial. ``objectives``: figure -> "max" or "min".

        ``share``: of the compute that training ``trials`` in full takes; None: that of successive halving, where one
        in ``reduction`` goes on at each rung. ``state``: that of an earlier search, which this one continues.
        """
        self.rungs, self.objectives, self.trials = list(rungs), dict(objectives), trials
        self.share = share if share is not None else halving_share(self.rungs, reduction)
        self._trials: dict[str, dict] = (state or {}).get("trials", {})

    def record(self, trial: str, epoch: int, figures: Mapping[str, float | None], cost: float) -> None:
        """``trial`` has trained up to the rung ``epoch`` and pauses; ``cost``: of one of its epochs, in any unit."""
        found = self._trials.setdefault(trial, {"cost": float(cost), "figures": {}, "lost": False})
        found["lost"] = False
        found["figures"][str(epoch)] = {name: figures.get(name) for name in self.objectives}

    def lost(self, trial: str) -> None:
        """``trial`` has failed for good."""
        self._trials.setdefault(trial, {"cost": None, "figures": {}, "lost": True})["lost"] = True

    def state(self) -> dict:
        """What is kept in storage, as JSON."""
        return {"trials": self._trials}

    def spent(self) -> float:
        """Compute of all recorded epochs, in the unit of ``cost``."""
        return sum(found["cost"] * self._epoch(trial) for trial, found in self._trials.items() if found["figures"])

    def budget(self, trials: int | None = None) -> float:
        """Compute that may be spent on so many trials, default all, as far as those so far tell what one costs."""
        return self.share * (self.trials if trials is None else trials) * self._mean_cost() * self.rungs[-1]

    def next(self, running: Mapping[str, int], can_propose: bool) -> Step | None:
        """What to start now, beside the ``running`` trials (trial -> the rung it trains to); None: nothing.

        None with nothing running means that the search is over.
        """
        begun = len(self._trials.keys() | running.keys())
        reserved = sum(self._cost(trial) * max(0, to - self._epoch(trial)) for trial, to in running.items())
        left = self.budget(None if can_propose else min(begun, self.trials)) - self.spent() - reserved
        if can_propose and begun < self._num_begin():
            return Step(None, self.rungs[0])
        if any(not self._epoch(trial) for trial in running):
            return None  # first rungs are short; then all are compared
        paused = [trial for trial in self._paused() if trial not in running]
        affordable = [trial for trial in paused if self._to_end(trial) <= left]
        if not affordable and not running and not self._finished():
            affordable = paused  # a search ends with a trained model, however small its share
        if not affordable:
            return None
        best = min(self._plan(affordable, running, left), key=self._epoch)
        return Step(best, next(rung for rung in self.rungs if rung > self._epoch(best)))

    def reason(self, trial: str) -> str | None:
        """Why ``trial`` pauses; None where it does not."""
        if trial not in (paused := self._paused()):
            return None
        epoch, place = self._epoch(trial), self._order().index(trial) + 1
        return f"paused after epoch {epoch}: {place} of {len(paused)} by what they would add to the front for their cost"

    # --- what is known ------------------------------------------------------------------------------

    def _epoch(self, trial: str) -> int:
        """Last rung that ``trial`` has reached; 0: none."""
        return max(map(int, self._trials[trial]["figures"]), default=0) if trial in self._trials else 0

    def _mean_cost(self) -> float:
        costs = [found["cost"] for found in self._trials.values() if found["cost"] is not None]
        return sum(costs) / len(costs) if costs else 1.0

    def _cost(self, trial: str) -> float:
        cost = self._trials.get(trial, {}).get("cost")
        return self._mean_cost() if cost is None else cost

    def _to_end(self, trial: str) -> float:
        return self._cost(trial) * (self.rungs[-1] - self._epoch(trial))

    def _paused(self) -> list[str]:
        return [trial for trial, found in self._trials.items()
                if not found["lost"] and found["figures"] and self._epoch(trial) < self.rungs[-1]]

    def _finished(self) -> list[str]:
        return [trial for trial in self._trials if self._epoch(trial) >= self.rungs[-1]]

    def _num_begin(self) -> int:
        """How many trials begin: all, unless their first rungs alone would take too much of the share."""
        return max(1, min(self.trials, int(FIRST_SHARE * self.share * self.trials * self.rungs[-1] / self.rungs[0])))

    # --- what is expected ---------------------------------------------------------------------------

    def _order(self) -> list[str]:
        gain = self._gains({})
        return sorted(self._paused(), key=lambda trial: -gain[trial] / self._to_end(trial))

    def _plan(self, paused: Sequence[str], running: Mapping[str, int], left: float) -> list[str]:
        """Paused trials, most valuable first, whose ends take ``left`` and are expected to add most together."""
        names = [trial for trial, found in self._trials.items() if found["figures"]]
        dominates = self._dominates(names)
        taken = np.array([trial in running or self._epoch(trial) >= self.rungs[-1] for trial in names])
        free = np.prod(1 - dominates[taken], axis=0)
        index = {trial: number for number, trial in enumerate(names)}
        return best_plan(list(paused), dominates[[index[trial] for trial in paused]], free,
                         np.array([self._to_end(trial) for trial in paused]), left)

    def _gains(self, running: Mapping[str, int]) -> dict[str, float]:
        """Paused trial -> hypervolume that it is expected to add at its end to that of the finished and running ones.

        A point of objective space is dominated by a trial with the product of the probabilities that the trial's end
        is better in each objective.
        """
        names = [trial for trial, found in self._trials.items() if found["figures"]]
        dominates = self._dominates(names)
        taken = np.array([trial in running or self._epoch(trial) >= self.rungs[-1] for trial in names])
        free = np.prod(1 - dominates[taken], axis=0)
        return dict(zip(names, (dominates @ free / NUM_SAMPLES).tolist()))

    def _dominates(self, names: Sequence[str]) -> np.ndarray:
        """(N, NUM_SAMPLES): probability that each trial dominates, at its end, each of points spread evenly."""
        probability = np.ones((len(names), NUM_SAMPLES))
        covariates = np.log([[self._trials[trial]["cost"] or 1e-9] for trial in names])
        for axis, (name, direction) in enumerate(self.objectives.items()):
            at_rungs = np.array([[self._figure(trial, rung, name) for rung in self.rungs] for trial in names])
            points = halton(NUM_SAMPLES, PRIMES[axis])
            if name in STATIC:
                value = SIGN[direction] * np.nanmax(at_rungs, axis=1)
                low, high = value.min(), value.max()
                low -= MARGIN * (high - low) or 1e-9
                probability *= value[:, None] >= low + (high - low) * points
            else:
                low, high = (0, None) if (at_rungs[~np.isnan(at_rungs)] >= 0).all() else (np.nanmin(at_rungs), None)
                power = (lambda x: np.cbrt(x)) if low == 0 else (lambda x: x)
                mean, deviation = forecast(power(at_rungs), covariates)
                high = np.max(mean + 2 * deviation)
                high = high ** 3 if low == 0 else high
                points = power(low + (high - low) * points)
                probability *= normal_cdf((mean[:, None] - points) / np.maximum(deviation, 1e-9)[:, None])
        return probability

    def _figure(self, trial: str, rung: int, name: str) -> float:
        """A figure at a rung; NaN before it is reached, the worst one where it was reached without."""
        at_rung = self._trials[trial]["figures"].get(str(rung))
        if at_rung is None:
            return math.nan
        return 0.0 if at_rung[name] is None else at_rung[name]


EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def best_plan(names: list, dominates: np.ndarray, free: np.ndarray, costs: np.ndarray, left: float) -> list:
    """Of greedy choices by gain / cost^a the one that covers most."""
    best, best_cover = [], np.inf
    for exponent in EXPONENTS:
        weight, rest, budget = costs ** -exponent, free.copy(), left
        chosen, open_ = [], np.ones(len(names), bool)
        while True:
            fits = open_ & (costs <= budget)
            if not fits.any():
                break
            index = int(np.argmax(np.where(fits, dominates @ rest * weight, -1)))
            chosen.append(names[index])
            open_[index] = False
            budget -= costs[index]
            rest *= 1 - dominates[index]
        if chosen and rest.mean() < best_cover:
            best, best_cover = chosen, rest.mean()
    return best or names[:1]


PRIMES = (2, 3, 5, 7, 11, 13)


def halton(count: int, base: int) -> np.ndarray:
    """The first points in (0, 1) of van der Corput's sequence to a base."""
    numbers, found, digit = np.arange(1, count + 1), np.zeros(count), 1 / base
    while numbers.any():
        found += digit * (numbers % base)
        numbers, digit = numbers // base, digit / base
    return found


def normal_cdf(z: np.ndarray) -> np.ndarray:
    """Cumulative distribution of the normal distribution, to 3e-4."""
    return 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z ** 3)))


def halving_share(rungs: Sequence[int], reduction: int) -> float:
    """Share of the full sweep's compute if one in ``reduction`` goes on at each rung."""
    steps = np.diff([0, *rungs])
    return float(sum(step / reduction ** number for number, step in enumerate(steps)) / rungs[-1])
