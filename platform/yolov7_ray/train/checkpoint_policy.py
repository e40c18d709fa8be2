"""Checkpoint policy of rank 0: save at the end of epochs, within epochs, and before workers are stopped."""

import time

from yolov7.training.state import TrainState

from .checkpoints import UNEVALUATED, Checkpoints
from .progress import Reporter
from .spec import TrainSpec


class CheckpointPolicy:
    """Decides after each update of a run whether to save a checkpoint."""

    def __init__(self, spec: TrainSpec, state: TrainState, checkpoints: Checkpoints, reporter: Reporter) -> None:
        self.spec, self.state, self.checkpoints, self.reporter = spec, state, checkpoints, reporter
        self._document = spec.model_dump(mode="json")
        self._saved_at, self._updates = time.monotonic(), 0

    def rehearse(self) -> None:
        """JobError if a checkpoint of this run finds no space."""
        self.checkpoints.rehearse(self.state.snapshot(), self._document)

    def after_update(self) -> None:
        """Save if a checkpoint is due and no earlier one is still being written, or at once if a save was requested.

        Never within a row of skipped updates: such a checkpoint would replace good ones, and a run that rolls back to
        it has only the rest of the row left. A request waits for the end of the row, or for the rollback.
        """
        self._updates += 1
        if self.state.skipped_in_a_row:
            return
        policy, age_s = self.spec.checkpoint, time.monotonic() - self._saved_at
        due = age_s >= 60 * policy.every_minutes or bool(policy.every_updates and self._updates >= policy.every_updates)
        requested = self.reporter.save_requested()
        if requested or due and not self.checkpoints.busy:
            self.save({"epoch": self.state.epoch, "step": self.state.step}, None)
        if requested:
            self.checkpoints.wait()
            self.reporter.saved(f"saved after epoch {self.state.epoch}, step {self.state.step}")

    def after_epoch(self, metrics: dict, score: float | None, last: bool) -> None:
        """Save at the end of an epoch if one is due, and always at the ``last`` before the run ends or pauses."""
        due = self.state.epoch % self.spec.checkpoint.every_epochs == 0
        if last or due and not self.state.skipped_in_a_row:
            self.save(metrics, score)

    def save(self, metrics: dict, score: float | None) -> None:
        """Write the current state in the background."""
        self.checkpoints.save(self.state.snapshot(), self._document, metrics, UNEVALUATED if score is None else score)
        self._saved_at, self._updates = time.monotonic(), 0
