"""Population-based training (Jaderberg et al. 2017): trials that fall behind go on from the weights of better ones.

A population trains generation by generation. After each its lower quarter takes over weights, average and optimizer of
trials of the upper quarter, with values near to theirs. A generation begins when all have ended the one before. So
trials are compared at one epoch, and what is decided depends neither on the order in which they end nor on how many
run at the same time.
"""

import math
import random
from collections.abc import Mapping, Sequence

from .algorithms import mutation
from .fronts import fronts, ranked
from .records import Records, Step
from .space import Space, Values

QUANTILE = 0.25
"""Part of the population that is replaced, and by copies of as large a part; at most half."""
RESAMPLED = 0.25
"""Probability that a value is drawn anew, anywhere in its range."""
SPREAD = 0.05
"""Standard deviation of the step of the other values, as a part of their range: in two decades a factor of 1.26."""


def generations(every: int, epochs: int) -> list[int]:
    """Epochs at which generations end: multiples of ``every``, and the last of all."""
    return [*range(every, epochs, every), epochs]


class Population(Records):
    """Decides for all trials of a population."""

    def __init__(self, rungs: Sequence[int], objectives: Mapping[str, str], *, trials: int, seed: int,
                 state: dict | None = None) -> None:
        super().__init__(rungs, objectives, trials=trials, state=state)
        self._seed = seed

    def next(self, running: Mapping[str, int], can_propose: bool) -> Step | None:
        """All trials begin; then each goes on by one generation when all have come as far as it.

        Those that take over another's weights come first.
        """
        if can_propose and len(self._trials.keys() | running.keys()) < self.trials:
            return Step(None, self.rungs[0])
        paused = self._paused()
        epoch = min(map(self._epoch, {*paused, *running}), default=self.rungs[-1])
        waiting = [trial for trial in sorted(paused) if trial not in running and self._epoch(trial) == epoch]
        if not waiting:
            return None
        donors = self._donors(epoch, running)
        trial = next((trial for trial in waiting if trial in donors), waiting[0])
        return Step(trial, self._following(epoch), donors.get(trial))

    def reason(self, trial: str) -> str | None:
        return (f"paused after epoch {self._epoch(trial)}: the search ended before its next generation"
                if trial in self._paused() else None)

    def _donors(self, epoch: int, running: Mapping[str, int]) -> dict[str, str]:
        """Trial of the lower quarter -> the one of the upper quarter that it follows; never an equal one.

        Trials that have gone far ahead, before the search was extended, are not compared: their checkpoints of this
        epoch are gone.
        """
        there = [trial for trial, found in sorted(self._trials.items()) if str(epoch) in found["figures"]
                 and running.get(trial, self._epoch(trial)) <= self._following(epoch)]
        points = [[self._figure(trial, epoch, name) for name in self.objectives] for trial in there]
        directions = list(self.objectives.values())
        order, front_of = ranked(points, directions), {
            index: number for number, front in enumerate(fronts(points, directions)) for index in front}
        count = min(math.ceil(QUANTILE * len(there)), len(there) // 2)
        found = {}
        for index in order[len(order) - count:]:
            better = [there[other] for other in order[:count]
                      if front_of[other] < front_of[index] and not self._trials[there[other]]["lost"]]
            if better:
                found[there[index]] = random.Random(f"{self._seed} {there[index]} {epoch}").choice(better)
        return found


def explored(space: Space, values: Values, rng: random.Random) -> Values:
    """Values near to these: each by a normal step along its range, some drawn anew."""
    return {path: axis.at(rng.random()) if rng.random() < RESAMPLED else mutation(axis, values[path], rng, SPREAD)
            for path, axis in space.axes.items()}
