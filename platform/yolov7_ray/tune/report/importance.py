"""Which searched values matter: Optuna's PED-ANOVA over trials compared at one epoch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..distributions import Choice, Distribution, LogUniform
from .view import SearchView

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MIN_TRIALS = 8
"""With fewer trials shares are noise."""


def compared_epoch(curves: Mapping[str, Sequence[tuple[int, float]]]) -> int | None:
    """The highest epoch that at least half of the trials, and `MIN_TRIALS`, have a value at; None: there is none."""
    reached = sorted(({epoch for epoch, _ in points} for points in curves.values() if points), key=max)
    enough = max(MIN_TRIALS, -(-len(reached) // 2))
    counts = {epoch: sum(epoch in epochs for epochs in reached) for epochs in reached for epoch in epochs}
    return max((epoch for epoch, count in counts.items() if count >= enough), default=None)


def importances(view: SearchView, curves: Mapping[str, Sequence[tuple[int, float]]]) -> tuple[dict[str, float], int]:
    """Dotted path -> share, the largest first, and the epoch at which trials were compared; empty: too few trials.

    ``curves``: trial -> (epoch, first objective).
    """
    epoch = compared_epoch(curves)
    if epoch is None:
        return {}, 0
    import optuna  # not where a search is only shown

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searched = view.spec.search
    space = {path: _space(distribution) for path, distribution in searched.items()}
    values = {trial: dict(points).get(epoch) for trial, points in curves.items()}
    study = optuna.create_study(direction={"max": "maximize", "min": "minimize"}[view.objectives[view.leading]])
    study.add_trials([
        optuna.trial.create_trial(params={path: _value(searched[path], value) for path, value in row["values"].items()},
                                  distributions=space, value=values[row["trial"]])
        for row in view.rows if values.get(row["trial"]) is not None and row["values"].keys() == space.keys()])
    if len(study.trials) < MIN_TRIALS:
        return {}, 0
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator), epoch


def _space(distribution: Distribution) -> "BaseDistribution":
    """Of a choice the position counts."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(distribution, Choice):
        return CategoricalDistribution(range(len(distribution.choice)))
    bounds = distribution.bounds()
    return FloatDistribution(bounds[0], bounds[-1], log=isinstance(distribution, LogUniform))


def _value(distribution: Distribution, value: Any) -> Any:
    return distribution.choice.index(value) if isinstance(distribution, Choice) else float(value)
