"""What a search tells while it runs, a line per ended trial, and its end at Ctrl-C."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ray.tune import Callback
from ray.tune.experiment import Trial as RayTrial

from .judge import read_state
from .trial import Trial, read_trial

T = TypeVar("T")
STOP_TIMEOUT_S = 30.0
"""How long an interrupted search waits until Tune has ended its trials."""


class Interrupted(Exception):
    """Ends Tune's loop without marking the trials that run as ended, so that --resume goes on with them."""


class Follower(Callback):
    """Follows a search of ``num_trials`` in the directory ``run``."""

    def __init__(self, run: str, num_trials: int) -> None:
        self.run, self.num_trials = run, num_trials
        self._interrupted, self._ended = threading.Event(), threading.Event()
        self._ended.set()
        self._started, self._num_ended = time.monotonic(), 0

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

    def outcome(self, trial: RayTrial) -> Trial:
        """What an ended trial has in storage, and why it stopped or failed."""
        stopped = read_state(self.run)["stopped"].get(trial.trial_id, {})
        error = trial.get_error()
        return read_trial(self.run, trial.trial_id, trial.config, str(error) if error else None, stopped.get("reason"))

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: object) -> None:
        if self._interrupted.is_set():
            raise Interrupted

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        self._num_ended += 1
        over = {other.trial_id for other in trials if other.is_finished()} | {trial.trial_id}
        seconds = (time.monotonic() - self._started) / self._num_ended * (self.num_trials - len(over))
        print(line(self.outcome(trial), len(over), self.num_trials, seconds), flush=True)

    on_trial_error = on_trial_complete


def line(trial: Trial, number: int, num_trials: int, seconds_left: float) -> str:
    """An ended trial, how many have ended, and how long the others will take."""
    row = trial.row()
    if trial.error:
        text = f"failed: {last_line(trial.error)}"
    else:
        ap = "no AP" if row["ap"] is None else f"AP {row['ap']:.4g}"
        text = f"{ap} after {row['epochs']} epochs, {row['gflops']:.3g} GFLOPs"
    stopped = f"; stopped: {trial.stopped}" if trial.stopped else ""
    left = f", about {max(1, round(seconds_left / 60))} min left" if number < num_trials else ""
    return f"trial {trial.trial_id}  {text}{stopped}\n  {number} of {num_trials} trials have ended{left}"


def last_line(error: str) -> str:
    """The line of a traceback that says what happened."""
    return (error.strip().splitlines() or ["unknown"])[-1]
