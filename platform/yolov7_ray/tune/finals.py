"""Trains the finalists of a search in full, each with its seeds, on the engine that trains trials."""

from contextlib import suppress
from typing import Any

from .. import storage
from ..errors import NotFound, StorageError
from .finalists import finalists, outcome
from .objectives import is_accuracy
from .scheduler import Scheduler, Start
from .trial import Trial

STATE = "finalists.json"
"""In a search's directory: what is known of the trainings of its finalists."""
FOLDER = "finalists"


class Finals:
    """Decides as `Scheduler` does, when the search is over: every training runs to its end, lost ones are retried."""

    def __init__(self, search: Scheduler) -> None:
        """``search``: a finished one whose trials know their results."""
        self._search, self.run, self.history = search, search.run, search.history
        self.spec = search.spec.model_copy(update={"keep_checkpoints": "all"})  # dominated or not: they are the result
        self._searched = search.rows()
        self.jobs = dict(finalists(search.spec, self._searched))
        known = read_state(self.run)
        self.trials = {name: Trial(name, **known[name]) if name in known else Trial(
            name, {}, storage.join(self.run, FOLDER, name), "running", to_epoch=job.epochs)
            for name, job in self.jobs.items()}
        for trial in self.trials.values():
            if trial.epoch != self.jobs[trial.trial_id].epochs:
                trial.status, trial.to_epoch, trial.lost = "running", self.jobs[trial.trial_id].epochs, 0
            with suppress(StorageError):
                trial.read_results()
        self._to_start = [trial for trial in self.trials.values() if trial.status == "running"]
        self._started: set[str] = set()

    @property
    def elapsed_s(self) -> float:
        return self._search.elapsed_s

    @property
    def num_started(self) -> int:
        """How many are trained at this moment."""
        return len(self._started)

    @property
    def is_finished(self) -> bool:
        """Whether all are trained, or have failed."""
        return not self._to_start and not self._started

    def next(self) -> Start | None:
        """The next training; None: none is left."""
        if not self._to_start:
            return None
        trial = self._to_start.pop(0)
        self._started.add(trial.trial_id)
        return Start(trial, self.jobs[trial.trial_id], keep_all=False, measures=False)

    def reached(self, name: str, figures: dict[str, float | None]) -> Trial:
        """The training has ended, with these figures."""
        trial = self.trials[name]
        trial.epoch, trial.status, trial.figures, trial.error = trial.to_epoch, "trained", figures, None
        return self._ended(trial)

    def failed(self, name: str, error: str, retryable: bool) -> Trial:
        """The training was lost; it is tried again unless that is useless or was done often enough."""
        trial = self.trials[name]
        trial.lost += 1
        if retryable and trial.lost <= self.spec.retries:
            self._started.discard(name)
            self._to_start.append(trial)
            return trial
        trial.status, trial.error = "failed", error
        return self._ended(trial)

    def _ended(self, trial: Trial) -> Trial:
        self._started.discard(trial.trial_id)
        with suppress(StorageError):  # both are read and written again at the next end, and a resumed search trains on
            trial.read_results()
            storage.write_json(storage.join(self.run, STATE),
                               {name: known.state() for name, known in self.trials.items()})
        return trial

    def rows(self) -> list[dict[str, Any]]:
        """The search's rows of trials.json, and one for each finalist, the best first."""
        results = {name: trial.figures for name, trial in self.trials.items() if trial.status == "trained"}
        return [*self._searched, *(self._row(found, place) for place, found in enumerate(
            outcome(self.spec, self._searched, results)))]

    def _row(self, found: dict[str, Any], place: int) -> dict[str, Any]:
        """A finalist's row: means over its seeds, and of those the best one's run and checkpoint."""
        trials = [self.trials[name] for name in found["names"]]
        trained = [trial for trial in trials if trial.status == "trained"]
        accuracy = next(name for name in self.spec.objectives if is_accuracy(name))
        best = max(trained, key=lambda trial: trial.figures.get(accuracy) or 0.0, default=trials[0])
        failed = [trial for trial in trials if trial.status == "failed"]
        status = "finalist" if len(trained) + len(failed) == len(trials) and trained else \
            "failed" if len(failed) == len(trials) else "running"
        return {**best.row(), "trial": f"{found['finalist']}-final", "values": found["values"], "status": status,
                "epoch": max(trial.epoch for trial in trials), "figures": found["figures"], "spread": found["spread"],
                "seeds": found["seeds"], "place": place, "spent": 0.0, "cost": None, "finalist": found["finalist"],
                "reason": f"mean of {len(trained)} of {len(trials)} seeds" if len(trials) > 1 else None,
                "error": failed[0].error if failed else None}


def read_state(run: str) -> dict[str, Any]:
    """Name of each training -> what is known of it; empty before the first has ended."""
    try:
        return storage.read_json(storage.join(run, STATE))
    except NotFound:
        return {}
