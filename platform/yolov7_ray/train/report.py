"""Output of a run for its users: results.json and results.csv, TensorBoard events, plots and a page."""

import json
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from yolov7.evaluation.metrics import Metrics
from yolov7.images.sample import encode_image
from yolov7.training.state import TrainState

from .. import storage
from ..data.reading.dataset import ArrowDataset
from ..errors import NotFound, StorageError
from ..evaluate.page.pictures import Gallery, gallery
from ..evaluate.rank_share import Share, Worker
from ..evaluate.report import write_plots
from .checkpoints import checkpoint_name
from .outcome import events
from .outcome.batches import with_first_drawn
from .outcome.page import RunView, environment, run_page
from .outcome.results_csv import results_csv
from .spec import TrainSpec

BATCHES = "train-batches.jpg"
PICTURES_SHARE = 0.01
"""Of a run's time, spent at most on drawing images for its page; those of the first and of the last evaluation are always drawn."""


class RunLog:
    """Writes the run's own log after every epoch; Ray's keeps only rows whose checkpoint is retained.

    It is kept in memory and needs no disk of the worker.
    """

    def __init__(self, run: str, spec: TrainSpec, train_set: ArrowDataset, val_set: ArrowDataset, worker: Worker,
                 log: Callable[[str], None]) -> None:
        """``log`` prints a line for the user."""
        self.run, self.spec, self.train_set, self.val_set, self.log = run, spec, train_set, val_set, log
        self._environment = environment(worker.device, worker.precision, worker.world_size)
        self._events = bytearray(events.beginning())
        self._events_uri = storage.join(run, "tensorboard",
                                        f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}")
        self._metrics: Metrics | None = None
        self._gallery: Gallery | None = None
        self._gallery_epoch, self._drawn_at, self._drawing_s = 0, float("-inf"), 0.0
        self._batches_jpeg: bytes | None = None

    def write(self, state: TrainState, metrics: Metrics | None, share: Share | None, cost: dict[str, float],
              checkpoints: set[str], last: bool = False) -> None:
        """Record the last epoch, with the page if it was evaluated: ``metrics``, and ``share``, what this rank found.

        After the ``last`` epoch, plots as PNG too. ``checkpoints`` are the names of those that are complete in storage.
        StorageError if it cannot be written.
        """
        row = state.history[-1]
        figures = {key: value for key, value in row.items() if isinstance(value, (int, float)) and key != "epoch"}
        figures |= {f"seconds/{stage}": seconds for stage, seconds in row["seconds"].items()}
        for key, value in figures.items():
            self._events += events.figure(key, value, row["epoch"])
        storage.write_bytes(self._events_uri, bytes(self._events))
        self._metrics = metrics or self._metrics
        results = summarize(state, self.spec, self.train_set, self._metrics, checkpoints) | cost
        if metrics is not None:
            self._write_page(results, metrics, share, last)
        storage.write_bytes(storage.join(self.run, "results.csv"), results_csv(state.history).encode())
        storage.write_bytes(storage.join(self.run, "results.json"), json.dumps(results, indent=1).encode())

    def first_drawn(self, steps: Iterable) -> Iterable:
        """``steps`` of the first epoch, unchanged; a picture of the first images goes into the report."""
        def show(picture: np.ndarray) -> None:
            self._batches_jpeg = encode_image(picture, ".jpg")
            self._events += events.picture("train-batches", self._batches_jpeg, picture.shape[:2], 0)
            try:
                storage.write_bytes(storage.join(self.run, "report", BATCHES), self._batches_jpeg)
            except StorageError as error:
                self.log(f"the picture of the first batches could not be written ({error}); training goes on")

        return with_first_drawn(steps, self.train_set.classes, show)

    def _write_page(self, results: dict, metrics: Metrics, share: Share, last: bool) -> None:
        epoch, uri = results["epochs"][-1]["epoch"], storage.join(self.run, "report")
        try:
            self._look_at_images(metrics, share, epoch, last)
            page = run_page(RunView(self.run, self.spec, results, metrics, epoch, self._gallery, self._gallery_epoch,
                                    self._first_batches(), self._environment))
        except StorageError:
            raise
        except Exception:  # noqa: BLE001  (what cannot be shown must not end a training)
            self.log(f"the page of the run could not be drawn; training goes on\n{traceback.format_exc()}")
            return
        storage.write_bytes(storage.join(uri, "index.html"), page.encode())
        if last:
            with storage.staging(uri) as directory:
                write_plots(Path(directory), metrics, results["classes"], results["epochs"])
                storage.publish(directory, uri)

    def _look_at_images(self, metrics: Metrics, share: Share, epoch: int, last: bool) -> None:
        """Draw the worst images, unless that would take too much of the run's time."""
        now = time.monotonic()
        if self._drawing_s > PICTURES_SHARE * (now - self._drawn_at) and not last:
            return
        self._gallery, self._gallery_epoch = gallery(self.val_set, share, metrics.operating.best_confidence), epoch
        self._drawn_at, self._drawing_s = now, time.monotonic() - now

    def _first_batches(self) -> bytes | None:
        """The picture of the first batches, also of a run that was begun by another process."""
        if self._batches_jpeg is None:
            try:
                self._batches_jpeg = storage.read_bytes(storage.join(self.run, "report", BATCHES))
            except NotFound:
                self._batches_jpeg = b""
        return self._batches_jpeg or None


def best_row(rows: Sequence[dict], figure: str, latest: bool = False) -> dict | None:
    """The evaluated epoch of the highest figure, of several the first or the latest; None if none was evaluated."""
    measured = [row for row in rows if row.get(figure) is not None]
    return max(reversed(measured) if latest else measured, key=lambda row: row[figure], default=None)


def summarize(state: TrainState, spec: TrainSpec, train_set: ArrowDataset, metrics: Metrics | None,
              checkpoints: set[str]) -> dict:
    """results.json: best and last checkpoint, every epoch's row, model, data and spec."""
    saved = [row for row in state.history if checkpoint_name(row["epoch"]) in checkpoints]
    best = best_row(saved, spec.checkpoint.best_by, latest=True) or (saved[-1] if saved else None)
    return {
        "best_checkpoint": checkpoint_name(best["epoch"]) if best else None,
        "last_checkpoint": checkpoint_name(saved[-1]["epoch"]) if saved else None,
        "best": {key: value for key, value in (best or {}).items() if isinstance(value, (int, float))},
        "architecture": spec.model.build_architecture().name,
        "classes": state.classes,
        "dataset": spec.dataset,
        "dataset_fingerprint": train_set.fingerprint,
        "epochs": state.history,
        "metrics": metrics.to_dict() if metrics else None,
        "spec": spec.model_dump(mode="json"),
    }
