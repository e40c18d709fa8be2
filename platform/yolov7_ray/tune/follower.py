"""Takes what became of each leg of a trial from Tune to the scheduler, tells it, and ends a search at Ctrl-C."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ray import cloudpickle
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial

from ..errors import JobError, StorageError
from ..train.failures import explain, is_retryable, reason
from .report.live import told
from .report.page import Page
from .report.view import SearchView
from .scheduler import Scheduler, last_line
from .trial import Trial, figures_of, remove_dominated

T = TypeVar("T")
STOP_TIMEOUT_S = 30.0
"""How long an interrupted search waits until Tune's loop has ended."""
SAY_WAITING_EVERY_S = 60.0
"""How often it is told that no trial runs because the cluster has no room."""


class Interrupted(BaseException):
    """Ends Tune's loop at once, and with it nothing of the state: --resume goes on with the trials that run."""


class Follower(Callback):
    """Follows a search."""

    def __init__(self, scheduler: Scheduler, progress_actor: ActorHandle, show: Callable[[SearchView], None]) -> None:
        self.scheduler, self._progress_actor, self._show = scheduler, progress_actor, show
        self._page = Page(scheduler.run)
        self._interrupted, self._ended = threading.Event(), threading.Event()
        self._ended.set()
        self._began, self._num_ended, self._idle_since = time.monotonic(), 0, time.monotonic()

    def follow(self, search: Callable[[], T]) -> T:
        """Run ``search()``, to which this callback belongs."""
        self._ended.clear()
        try:
            return search()
        finally:
            self._ended.set()

    def interrupt(self) -> None:
        """End the search, in another thread, at its next step."""
        self._interrupted.set()
        self._ended.wait(STOP_TIMEOUT_S)

    def outcome(self) -> SearchView:
        """The search at its end, with what each trial has in storage."""
        for trial in self.scheduler.trials.values():
            if trial.results is None:
                trial.read_results()
        return self.view()

    def view(self) -> SearchView:
        """The search as it is now."""
        scheduler = self.scheduler
        return SearchView(scheduler.spec, scheduler.rows(), scheduler.elapsed_s, run=scheduler.run,
                          history=scheduler.history)

    # --- Tune's events ------------------------------------------------------------------------------

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: object) -> None:
        if self._interrupted.is_set():
            raise Interrupted
        self._show(self.view())
        self._tell_waiting(trials)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        reached = self.scheduler.reached(trial.config["leg"]["trial"], figures_of(trial.last_result["row"]))
        reached.read_results()
        self._num_ended += 1
        self._tell(reached)
        if self.scheduler.spec.keep_checkpoints == "front":
            remove_dominated(self.scheduler.trials.values(), self.scheduler.spec.objectives)

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        name, error = trial.config["leg"]["trial"], error_of(trial)
        why, spec = explained(error, trial.config["leg"]["run"]), self.scheduler.spec
        found = self.scheduler.failed(name, why, is_retryable(error))
        if found.status == "failed":
            self._tell(found)
        else:
            self.say(f"trial {name}  was lost ({reason(error)}); going on from its last checkpoint, "
                     f"{found.lost} of {spec.retries} retries")

    def _tell(self, trial: Trial) -> None:
        """Say what became of a trial, and write the page anew."""
        view = self.view()
        self.say(told(trial.row(ended=False), view))
        try:
            self._page.write(view)
        except StorageError as error:
            self.say(f"the page of the search could not be written ({error}); it goes on")

    def say(self, text: str) -> None:
        """Print a line among those of the trials."""
        self._progress_actor.write.remote(text)

    def _tell_waiting(self, trials: list[RayTrial]) -> None:
        now = time.monotonic()
        waiting = [trial for trial in trials if trial.status == RayTrial.PENDING]
        if not waiting or any(trial.status == RayTrial.RUNNING for trial in trials):
            self._idle_since = now
        elif now - self._idle_since >= SAY_WAITING_EVERY_S:
            self._idle_since = now
            demand = self.scheduler.spec.train.resources.demand()
            self.say(f"no trial runs: {len(waiting)} wait for the cluster to have room for {demand.what}")


def error_of(trial: RayTrial) -> Exception:
    """What a leg ended with."""
    if trial.pickled_error_file and Path(trial.pickled_error_file).exists():
        return cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return RuntimeError(last_line(Path(trial.error_file).read_text()) if trial.error_file else "unknown")


def explained(error: Exception, run: str) -> str:
    """The error as text; one of the user's as he would get it from a train job."""
    failure = explain(LostTrial(error), run)
    return str(failure) if isinstance(failure, JobError) else reason(error) if isinstance(error, RayActorError) \
        else str(error)


class LostTrial(Exception):
    """Carries the error of a trial's worker to `explain`."""

    def __init__(self, error: Exception) -> None:
        self.worker_failures = {0: error}
