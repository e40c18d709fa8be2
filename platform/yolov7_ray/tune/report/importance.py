"""Which searched values matter: Optuna's PED-ANOVA over trials compared at one epoch."""

from collections.abc import Mapping, Sequence

from ..search_space import search_space
from .view import SearchView

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

    space = search_space(view.spec.search)
    values = {trial: dict(points).get(epoch) for trial, points in curves.items()}
    study = optuna.create_study(direction={"max": "maximize", "min": "minimize"}[view.objectives[view.leading]])
    study.add_trials([optuna.trial.create_trial(params=dict(row["values"]), distributions=space,
                                                value=values[row["trial"]])
                      for row in view.rows if values.get(row["trial"]) is not None and row["values"].keys() == space.keys()])
    return optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()), epoch
