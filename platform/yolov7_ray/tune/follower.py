"""Takes what became of each leg of a trial from Tune to the scheduler, tells it, and ends a search at Ctrl-C."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial

from ..errors import JobError, StorageError
from ..train.checkpoints import Checkpoints
from ..train.faults.failures import explain, is_retryable, reason
from .report.finalists import finalist_rows
from .report.live import told
from .report.page import Page
from .report.view import SearchView
from .scheduler import Scheduler
from .trial import Trial, figures_of, keep_best_and_newest, remove_dominated, remove_left

STOP_TIMEOUT_S = 30.0
"""How long an interrupted search waits until Tune's loop has ended."""
SAY_WAITING_EVERY_S = 60.0
"""How often it is told that no trial runs because the cluster has no room."""


class Interrupted(BaseException):
    """Ends Tune's loop at once, and with it nothing of the state: --resume goes on with the trials that run."""


class LegTrial(RayTrial):
    """A leg as a trial of Tune, which keeps what it ended with: Tune itself keeps that as a file alone."""

    error: Exception = RuntimeError("unknown")

    def handle_error(self, exc: Exception | None = None) -> None:
        self.error = exc or self.error
        super().handle_error(exc)

    def __getstate__(self) -> dict:
        return {key: value for key, value in super().__getstate__().items() if key != "error"}


class Follower(Callback):
    """Follows a search."""

    def __init__(self, scheduler: Scheduler, progress_actor: ActorHandle, show: Callable[[SearchView], None]) -> None:
        self.scheduler, self._progress_actor, self._show = scheduler, progress_actor, show
        self._page, self._is_page_old = Page(scheduler.run), False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="page")
        self._writing: Future | None = None
        self._interrupted, self._ended = threading.Event(), threading.Event()
        self._ended.set()
        self._error: Exception | None = None
        self._idle_since = time.monotonic()

    def follow(self, search: Callable[[], None]) -> None:
        """Run ``search()``, to which this callback belongs."""
        self._ended.clear()
        try:
            search()
            self._raise()
        finally:
            self._ended.set()
            self._writer.shutdown()

    def interrupt(self) -> None:
        """End the search, in another thread, at its next step."""
        self._interrupted.set()
        self._ended.wait(STOP_TIMEOUT_S)

    def outcome(self) -> SearchView:
        """The search at its end, with what each trial has in storage."""
        for trial in (*self.scheduler.trials.values(), *self.scheduler.finalists.values()):
            if trial.results is None:
                trial.read_results()
        self._trim_population()
        return self.view()

    def view(self) -> SearchView:
        """The search as it is now."""
        scheduler, rows = self.scheduler, self.scheduler.rows()
        return SearchView(scheduler.spec, [*rows, *finalist_rows(scheduler.spec, rows, scheduler.finalists)],
                          scheduler.elapsed_s, run=scheduler.run, history=scheduler.history)

    # --- Tune's events ------------------------------------------------------------------------------

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: object) -> None:
        if self._interrupted.is_set():
            raise Interrupted
        self._raise()
        view = self.view()
        self._show(view)
        self._tell_waiting(trials)
        if self._is_page_old and (self._writing is None or self._writing.done()):
            self._is_page_old, self._writing = False, self._writer.submit(self._write_page, view)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        with self._errors_kept():
            self._ended_leg(trial.config["leg"]["trial"], trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: LegTrial, **info: object) -> None:
        with self._errors_kept():
            self._lost_leg(trial.config["leg"], trial.error)

    def on_trial_recover(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        self.say(f"trial {trial.config['leg']['trial']}  was lost (its node was reclaimed); going on from its last "
                 "checkpoint")  # Tune itself starts it again, however often

    @contextmanager
    def _errors_kept(self) -> Iterator[None]:
        """Keep an error until the next step: here Tune would wrap it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  (raised again)
            self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _ended_leg(self, name: str, result: dict) -> None:
        if "costs" in result:
            found = self.scheduler.measured(name, result["costs"])
            if found.status == "rejected":
                self._tell(found)
            return
        reached = self.scheduler.reached(name, figures_of(result["row"]))
        self._tell(reached)
        with suppress(StorageError):  # the report reads them again, and what is not removed now is so later
            reached.read_results()
            self._remove_checkpoints(reached)

    def _remove_checkpoints(self, reached: Trial) -> None:
        """Remove those that are of no use after a trial has reached its rung; in a population others may go on from
        nearly all of them, until it is done."""
        scheduler = self.scheduler
        if scheduler.spec.keep_checkpoints == "all":
            return
        remove_left(reached)
        if scheduler.spec.algorithm != "population":
            remove_dominated(scheduler.trials.values(), scheduler.spec.objectives)

    def _trim_population(self) -> None:
        """Remove what a population that is done kept for those that might have gone on from it."""
        scheduler, trials = self.scheduler, self.scheduler.trials.values()
        if scheduler.spec.algorithm != "population" or scheduler.spec.keep_checkpoints == "all":
            return
        if scheduler.is_finished:
            with suppress(StorageError):
                remove_dominated(trials, scheduler.spec.objectives)
                for trial in trials:
                    if trial.status == "trained" and trial.has_checkpoints:
                        keep_best_and_newest(trial.run)

    def _lost_leg(self, leg: dict, error: Exception) -> None:
        name, why = leg["trial"], explained(error, leg["run"])
        newest = None
        with suppress(StorageError):
            newest = Checkpoints(leg["run"], 1).newest()
        found = self.scheduler.failed(name, why, is_retryable(error) or isinstance(error, OutOfMemoryError), newest)
        if found.status == "failed":
            self._tell(found)
        else:
            self.say(f"trial {name}  was lost ({reason(error)}); going on from its last checkpoint, "
                     f"{found.lost} of {self.scheduler.spec.retries} retries")

    def _tell(self, trial: Trial) -> None:
        """Say what became of a trial; the page is written anew while the next one starts."""
        self.say(told(trial.row(ended=False), self.view()))
        self._is_page_old = True

    def _write_page(self, view: SearchView) -> None:
        try:
            self._page.write(view)
        except Exception as error:  # noqa: BLE001  (at the search's end it is written again, and not excused)
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


def explained(error: Exception, run: str) -> str:
    """The error as text; one of the user's as he would get it from a train job."""
    failure = explain(LostTrial(error), run)
    return str(failure) if isinstance(failure, JobError) else reason(error) if isinstance(error, RayActorError) \
        else str(error)


class LostTrial(Exception):
    """Carries the error of a trial's worker to `explain`."""

    def __init__(self, error: Exception) -> None:
        self.worker_failures = {0: error}
