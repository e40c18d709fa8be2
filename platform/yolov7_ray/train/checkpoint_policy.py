"""When checkpoints are written: at the end of epochs, in between, and before the workers are ended (rank 0)."""

import time

from yolov7.training.state import TrainState

from .checkpoints import UNEVALUATED, Checkpoints
from .progress import Reporter
from .spec import TrainSpec


class Keeper:
    """Watches the updates of one run."""

    def __init__(self, spec: TrainSpec, state: TrainState, checkpoints: Checkpoints, reporter: Reporter) -> None:
        self.spec, self.state, self.checkpoints, self.reporter = spec, state, checkpoints, reporter
        self._document = spec.model_dump(mode="json")
        self._saved_at, self._updates = time.monotonic(), 0

    def after_update(self) -> None:
        """Save if it is time, unless the checkpoint before is still under way; or at once, if that is asked."""
        self._updates += 1
        rule, idle_s = self.spec.checkpoint, time.monotonic() - self._saved_at
        due = idle_s >= 60 * rule.every_minutes or bool(rule.every_updates and self._updates >= rule.every_updates)
        asked = self.reporter.asked_to_save()
        if asked or due and not self.checkpoints.busy:
            self.save({"epoch": self.state.epoch, "step": self.state.step}, None)
        if asked:
            self.checkpoints.wait()
            self.reporter.saved(f"saved after epoch {self.state.epoch}, step {self.state.step}")

    def save(self, metrics: dict, ap: float | None) -> None:
        """Write the state of this moment in the background."""
        self.checkpoints.save(self.state.snapshot(), self._document, metrics, UNEVALUATED if ap is None else ap)
        self._saved_at, self._updates = time.monotonic(), 0
