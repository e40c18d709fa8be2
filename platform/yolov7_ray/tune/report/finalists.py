"""A row for each finalist of a search, as far as its seeds are trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..finalists import outcome
from ..objectives import is_accuracy
from ..spec import TuneSpec
from ..trial import Trial
from .view import Row


def finalist_rows(spec: TuneSpec, rows: Sequence[Row], trainings: Mapping[str, Trial]) -> list[dict[str, Any]]:
    """Rows like those of trials, the best first: means over the seeds; run and checkpoint of the best one.

    ``rows``: those of the trials; ``trainings``: name -> training, one for each finalist and seed; none: no rows.
    """
    if not trainings:
        return []
    results = {name: trial.figures for name, trial in trainings.items() if trial.status == "trained"}
    accuracy = next(figure for figure in spec.objectives if is_accuracy(figure))
    return [_row(found, place, [trainings[name] for name in found["names"] if name in trainings], accuracy)
            for place, found in enumerate(outcome(spec, rows, results)) if trainings.keys() & set(found["names"])]


def _row(found: Mapping[str, Any], place: int, trials: Sequence[Trial], accuracy: str) -> dict[str, Any]:
    trained = [trial for trial in trials if trial.status == "trained"]
    failed = [trial for trial in trials if trial.status == "failed"]
    best = max(trained, key=lambda trial: trial.figures.get(accuracy) or 0.0, default=trials[0])
    own = [trial for trial in trials if trial.run.endswith(f"/{trial.trial_id}")]  # others are trials of the search
    status = "running" if len(trained) + len(failed) < len(trials) else "finalist" if trained else "failed"
    return {**best.row(), "trial": f"{found['finalist']}-final", "finalist": found["finalist"], "place": place,
            "values": found["values"], "status": status, "epoch": max(trial.epoch for trial in trials),
            "epochs_done": sum(trial.epoch for trial in own),
            "epochs_left": sum(trial.to_epoch - trial.epoch for trial in own if trial.status == "running"),
            "figures": found["figures"], "spread": found["spread"], "seeds": found["seeds"], "cost": None, "spent": 0.0,
            "reason": f"mean of {len(trained)} of {len(trials)} seeds" if len(trials) > 1 else None,
            "error": failed[0].error if failed else None}
