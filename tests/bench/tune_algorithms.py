"""Algorithms that `bench_tune.py` compares with promotion, each with promotion's interface.

`next(running, can_propose)` gives a Step or None, `record(…)` takes what a step reached; `choose(waiting)`, where there
is one, says which trial of the pool begins next, else they begin in their order.
"""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import optuna
from optuna.distributions import IntDistribution
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from yolov7_ray.tune.search.fronts import ranked
from yolov7_ray.tune.search.promotion import Step

optuna.logging.set_verbosity(optuna.logging.ERROR)
Curve = dict


class Begun:
    """Trials begin while the share lasts; each goes on, rung by rung, as long as `goes_on` says."""

    def __init__(self, pool: Mapping[str, Curve], rungs: Sequence[int], share: float | None) -> None:
        self.rungs, self.pool = list(rungs), pool
        self.left = math.inf if share is None else share * sum(curve["cost"] for curve in pool.values()) * rungs[-1]
        self._continuing: list[tuple[str, int]] = []

    def goes_on(self, trial: str, epoch: int, figures: Mapping[str, float]) -> bool:
        """Whether ``trial`` trains to the next rung."""
        return True

    def next(self, running: Mapping[str, int], can_propose: bool) -> Step | None:
        if self._continuing:
            return Step(*self._continuing.pop(0))
        return Step(None, self.rungs[0]) if can_propose and self._affordable() else None

    def _affordable(self) -> bool:
        """Whether what is left holds a trial of the usual cost."""
        return self.left >= sum(curve["cost"] for curve in self.pool.values()) / len(self.pool) * self.rungs[0]

    def record(self, trial: str, epoch: int, figures: Mapping[str, float], cost: float, values: dict | None) -> None:
        self.left -= cost * (epoch - max([rung for rung in self.rungs if rung < epoch], default=0))
        if epoch >= self.rungs[-1] or not self.goes_on(trial, epoch, figures):
            return
        to = next(rung for rung in self.rungs if rung > epoch)
        if self.left >= cost * (to - epoch):
            self._continuing.append((trial, to))


class Random(Begun):
    """Each trial is trained in full, until the share is spent."""

    def __init__(self, pool: Mapping[str, Curve], rungs: Sequence[int], share: float | None) -> None:
        super().__init__(pool, rungs[-1:], share)


class RayASHA(Begun):
    """Ray's own AsyncHyperBandScheduler, which stops trials by AP alone."""

    def __init__(self, pool: Mapping[str, Curve], rungs: Sequence[int], share: float | None, reduction: int = 3) -> None:
        super().__init__(pool, range(1, rungs[-1] + 1), share)
        self._scheduler = AsyncHyperBandScheduler(
            time_attr="epoch", metric="ap", mode="max", max_t=rungs[-1], grace_period=rungs[0],
            reduction_factor=reduction, stop_last_trials=False)
        self._trials: dict[str, SimpleNamespace] = {}

    def goes_on(self, trial: str, epoch: int, figures: Mapping[str, float]) -> bool:
        if trial not in self._trials:
            self._trials[trial] = SimpleNamespace(trial_id=trial)
            self._scheduler.on_trial_add(None, self._trials[trial])
        result = {"epoch": epoch, "ap": figures["ap"]}
        return self._scheduler.on_trial_result(None, self._trials[trial], result) == TrialScheduler.CONTINUE


class SuccessiveHalving:
    """All begin; of each rung the same fraction goes on, chosen when all are there, such that the share is spent.

    ``directions``: ranked by fronts with an epsilon-net (multi-objective ASHA, synchronous); None: by AP alone.
    """

    def __init__(self, pool: Mapping[str, Curve], rungs: Sequence[int], share: float, directions: Sequence[str] | None,
                 ) -> None:
        self.rungs, self.directions, self.left = list(rungs), directions, share * len(pool) * rungs[-1]
        self.num, self._begun = len(pool), 0
        self.fraction = fraction_for(self.num, rungs, share)
        self._at: dict[str, int] = {}
        self._figures: dict[str, tuple[float, float]] = {}
        self._queue: list[Step] = []

    def next(self, running: Mapping[str, int], can_propose: bool) -> Step | None:
        if can_propose:
            return Step(None, self.rungs[0])
        if not self._queue and not running:
            self._promote()
        return self._queue.pop(0) if self._queue else None

    def _promote(self) -> None:
        """Queue those that go on from the highest rung that trials wait at."""
        epoch = max(self._at.values())
        if epoch == self.rungs[-1]:
            return
        there = [trial for trial, at in self._at.items() if at == epoch]
        points = [self._figures[trial] for trial in there]
        order = ranked(points, self.directions) if self.directions else \
            sorted(range(len(there)), key=lambda index: -points[index][0])
        number = self.rungs.index(epoch) + 1
        count = max(1, round(self.num * self.fraction ** number))
        self._queue = [Step(there[index], self.rungs[number]) for index in order[:count]]

    def record(self, trial: str, epoch: int, figures: Mapping[str, float], cost: float, values: dict | None) -> None:
        self._at[trial], self._figures[trial] = epoch, (figures["ap"], figures["gflops"])


def fraction_for(num: int, rungs: Sequence[int], share: float) -> float:
    """Which fraction goes on at each rung if trials of equal cost are to take the share, rounded counts included."""
    def spent(fraction: float) -> float:
        counts = [num if not k else max(1, round(num * fraction ** k)) for k in range(len(rungs))]
        return sum(count * (to - at) for count, to, at in zip(counts, rungs, [0, *rungs])) / (num * rungs[-1])

    return max((step / 200 for step in range(1, 201) if spent(step / 200) <= share), default=1 / 200)


class HyperBand:
    """HyperBand (Li et al. 2018), synchronous: brackets, each of which begins at another rung, so that some trials are
    trained longer before they are compared. In each one in ``reduction`` goes on, by AP, chosen when all are there.
    """

    def __init__(self, pool: Mapping[str, Curve], rungs: Sequence[int], share: float, reduction: int = 3) -> None:
        self.rungs, self.reduction = list(rungs), reduction
        sizes = bracket_sizes(len(pool), rungs, share, reduction)
        self._first = [rung for rung, size in zip(rungs, sizes) for _ in range(size)]
        self._at: list[dict[str, int]] = [{} for _ in rungs]
        """Bracket -> trial -> rung."""
        self._ap: dict[str, float] = {}
        self._queue: list[Step] = []

    def next(self, running: Mapping[str, int], can_propose: bool) -> Step | None:
        if can_propose and self._first:
            return Step(None, self._first.pop(0))
        if not self._queue and not running:
            for bracket in self._at:
                self._promote(bracket)
        return self._queue.pop(0) if self._queue else None

    def _promote(self, bracket: Mapping[str, int]) -> None:
        """Queue those that go on from the highest rung of a bracket."""
        epoch = max(bracket.values(), default=self.rungs[-1])
        if epoch < self.rungs[-1]:
            there = sorted((trial for trial, at in bracket.items() if at == epoch), key=self._ap.get, reverse=True)
            to = self.rungs[self.rungs.index(epoch) + 1]
            self._queue += [Step(trial, to) for trial in there[:max(1, len(there) // self.reduction)]]

    def record(self, trial: str, epoch: int, figures: Mapping[str, float], cost: float, values: dict | None) -> None:
        bracket = next((known for known in self._at if trial in known), self._at[self.rungs.index(epoch)])
        bracket[trial], self._ap[trial] = epoch, figures["ap"]


def bracket_sizes(num: int, rungs: Sequence[int], share: float, reduction: int) -> list[int]:
    """How many of ``num`` trials begin at each rung: HyperBand's numbers, scaled so that trials of equal cost take the
    share."""
    halvings = range(len(rungs) - 1, -1, -1)
    full = [math.ceil(len(rungs) / (left + 1) * reduction ** left) for left in halvings]

    def spent(first: int, size: int) -> int:
        total = size * rungs[first]
        for at, to in zip(rungs[first:], rungs[first + 1:]):
            size = max(1, size // reduction)
            total += size * (to - at)
        return total

    scaled = ([max(1, int(size * step / 200)) for size in full] for step in range(200, 0, -1))
    return next((sizes for sizes in scaled if sum(sizes) <= num and sum(
        spent(first, size) for first, size in enumerate(sizes)) <= share * num * rungs[-1]), [1] + [0] * (len(rungs) - 1))


class TPE(Begun):
    """Optuna's multivariate TPE over AP and FLOPs, told the AP at which a trial ended; its pruner, by AP alone.

    Of the pool's trials that have not begun, the one whose values are nearest to the proposed ones begins.
    """

    def __init__(self, pool: Mapping[str, Curve], rungs: Sequence[int], share: float | None, seed: int = 0) -> None:
        super().__init__(pool, rungs, share)
        keys = sorted({key for curve in pool.values() for key in curve["values"]})
        self._options = {key: sorted({curve["values"][key] for curve in pool.values()}) for key in keys}
        self._space = {key: IntDistribution(0, len(options) - 1) for key, options in self._options.items()}
        self._ranks = {trial: {key: options.index(curve["values"][key]) for key, options in self._options.items()}
                       for trial, curve in pool.items()}
        self._study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(
            multivariate=True, seed=seed, warn_independent_sampling=False))
        self._pruning = optuna.create_study(direction="maximize", pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=rungs[0], reduction_factor=3))  # Optuna prunes for one objective only
        self._pruned: dict[str, optuna.Trial] = {}

    def choose(self, waiting: Sequence[str]) -> str:
        asked = self._study.ask(self._space)
        self._study.tell(asked, state=optuna.trial.TrialState.FAIL)  # what begins is told instead

        def distance(trial: str) -> float:
            return sum(abs(self._ranks[trial][key] - rank) / max(1, len(self._options[key]) - 1)
                       for key, rank in asked.params.items())

        trial = min(waiting, key=distance)
        self._pruned[trial] = self._pruning.ask()
        return trial

    def goes_on(self, trial: str, epoch: int, figures: Mapping[str, float]) -> bool:
        self._pruned[trial].report(figures["ap"], epoch)
        return not self._pruned[trial].should_prune()

    def record(self, trial: str, epoch: int, figures: Mapping[str, float], cost: float, values: dict | None) -> None:
        super().record(trial, epoch, figures, cost, values)
        if trial not in [name for name, _ in self._continuing]:
            self._study.add_trial(optuna.trial.create_trial(
                params=self._ranks[trial], distributions=self._space, values=[figures["ap"], figures["gflops"]]))
