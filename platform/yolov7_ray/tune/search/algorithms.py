"""Who proposes: each function draws one point from what is known, the same one for the same arguments."""

import random
from collections.abc import Callable, Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from ..objectives import Constraint
from .fronts import ranked
from .history import Known, Told
from .space import Axis, Space, Values

optuna.logging.set_verbosity(optuna.logging.WARNING)

CHILDREN = 0.5
"""Share of the points with several objectives that are drawn as `draw_evolved` does."""
NUM_PARENTS = 8
"""How many of the best trials have children."""
MUTATED = 0.6
"""Probability that a child's value differs from its parent's."""
SPREAD = 0.15
"""Standard deviation of that difference, as a part of the axis."""


def draw_random(space: Space, told: Told, objectives: Mapping[str, str], constraints: Mapping[str, Constraint],
                rng: random.Random) -> Values:
    """Any point, every one as likely."""
    return space.draw(rng)


def draw_tpe(space: Space, told: Told, objectives: Mapping[str, str], constraints: Mapping[str, Constraint],
             rng: random.Random) -> Values:
    """Optuna's TPE: a point that is likelier among the good than among the others (Bergstra et al. 2011, Ozaki et al.
    2022 for several objectives). Trials without a result count as others ("constant liar"). At random until there are
    enough results.

    One objective: keys are drawn together. Several: each key on its own, Optuna's default there, and half of the
    points are children of the front: TPE alone gathers on a part of it (tests/bench/LOG.md).
    """
    if told.epoch is None:
        return space.draw(rng)
    if len(objectives) > 1 and rng.random() < CHILDREN:
        return draw_evolved(space, told, objectives, constraints, rng)
    distributions = {path: to_optuna(axis) for path, axis in space.axes.items()}

    def trial(known: Known, **outcome: object) -> optuna.trial.FrozenTrial:
        params = {path: to_internal(axis, known.values[path]) for path, axis in space.axes.items()}
        return create_trial(params=params, distributions=distributions, **outcome)

    sampler = optuna.samplers.TPESampler(seed=rng.getrandbits(32), multivariate=len(objectives) == 1,
                                         n_startup_trials=0, constant_liar=True)
    study = optuna.create_study(sampler=sampler, directions=[
        "maximize" if direction == "max" else "minimize" for direction in objectives.values()])
    study.add_trials([trial(known, values=known.objectives(list(objectives), told.epoch)) for known in told.compared])
    study.add_trials([trial(known, values=known.objectives(list(objectives), None),
                            constraints=known.violations(constraints)) for known in told.rejected])
    study.add_trials([trial(known, state=TrialState.RUNNING) for known in told.others])
    params = study.ask(distributions).params
    return {path: to_value(axis, params[path]) for path, axis in space.axes.items()}


def draw_evolved(space: Space, told: Told, objectives: Mapping[str, str], constraints: Mapping[str, Constraint],
                 rng: random.Random) -> Values:
    """A child of one of the best trials: some values move by a normal step along their axis, clipped to its range.

    The best are those of the first fronts; a better one has more children. At random until there are enough results.
    """
    if told.epoch is None:
        return space.draw(rng)
    points = [known.objectives(list(objectives), told.epoch) for known in told.compared]
    parents = [told.compared[index] for index in ranked(points, list(objectives.values()))[:NUM_PARENTS]]
    [parent] = rng.choices(parents, [1 / (rank + 1) for rank in range(len(parents))])
    mutated = {path for path in space.axes if rng.random() < MUTATED} or {rng.choice(list(space.axes))}
    return {path: mutation(axis, parent.values[path], rng) if path in mutated else parent.values[path]
            for path, axis in space.axes.items()}


def mutation(axis: Axis, value: object, rng: random.Random, spread: float = SPREAD) -> object:
    """A value near another; any where an axis has no order, and at least the next one where it is discrete.

    ``spread``: standard deviation of the step, as a part of the axis.
    """
    if not axis.ordered:
        return rng.choice(axis.values)
    step = rng.gauss(0, spread)
    if axis.values is not None and len(axis.values) > 1:
        smallest = 1 / len(axis.values)
        step = step if abs(step) > smallest else smallest * rng.choice((-1, 1))
    return axis.at(axis.position(value) + step)


DRAW: dict[str, Callable[..., Values]] = {
    "promote": draw_tpe, "evolve": draw_evolved, "population": draw_random, "random": draw_random, "grid": draw_random}
"""Algorithm of a job -> who proposes. A grid is drawn at random without repeats, so that its beginning spreads over it.
Those of a population are where it begins.
"""


def to_optuna(axis: Axis) -> BaseDistribution:
    """Discrete values by their number: as an integer if they are ordered."""
    if axis.values is None:
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    if axis.ordered:
        return IntDistribution(0, len(axis.values) - 1)
    return CategoricalDistribution(range(len(axis.values)))


def to_internal(axis: Axis, value: object) -> float | int:
    """A value as `to_optuna` counts it."""
    return value if axis.values is None else axis.values.index(value)


def to_value(axis: Axis, internal: float | int) -> object:
    """The inverse of `to_internal`."""
    return internal if axis.values is None else axis.values[internal]
