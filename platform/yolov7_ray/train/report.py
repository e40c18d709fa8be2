"""Output of a run for its users: results.json, TensorBoard events, plots and a page that shows them."""

import html
import json
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from yolov7.architectures.published import Published, neighbours
from yolov7.evaluation.metrics import Metrics
from yolov7.training.state import TrainState

from .. import storage
from ..data.reading.dataset import ArrowDataset
from ..evaluate.report import Samples, storage_name, write_page, write_plots
from .checkpoints import checkpoint_name
from .spec import TrainSpec


class RunLog:
    """Writes the run's own log after every epoch; Ray's keeps only rows whose checkpoint is retained.

    It is kept in memory and needs no disk of the worker.
    """

    def __init__(self, run: str, spec: TrainSpec, train_set: ArrowDataset) -> None:
        self.run, self.spec, self.train_set = run, spec, train_set
        self._events = bytearray(record(Event(wall_time=time.time(), file_version="brain.Event:2")))
        self._events_uri = storage.join(run, "tensorboard",
                                        f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}")

    def write(self, state: TrainState, metrics: Metrics | None, samples: Samples,
              cost: dict[str, float], checkpoints: set[str]) -> None:
        """Record the last epoch; with ``metrics`` after the last one, the plots and the page as well.

        ``checkpoints`` are the names of those that are complete in storage. StorageError if that cannot be written.
        """
        row = state.history[-1]
        figures = {key: value for key, value in row.items() if isinstance(value, (int, float)) and key != "epoch"}
        figures |= {f"seconds/{stage}": seconds for stage, seconds in row["seconds"].items()}
        for key, value in figures.items():
            self._events += record(Event(wall_time=time.time(), step=row["epoch"], summary=scalar(key, value)))
        storage.write_bytes(self._events_uri, bytes(self._events))
        results = summarize(state, self.spec, self.train_set, metrics, checkpoints) | cost
        if metrics is not None:
            self._write_page(state, metrics, samples, results)
        storage.write_bytes(storage.join(self.run, "results.json"), json.dumps(results, indent=1).encode())

    def _write_page(self, state: TrainState, metrics: Metrics, samples: Samples, results: dict) -> None:
        uri = storage.join(self.run, "report")
        with storage.staging(uri) as directory:
            pictures = Path(directory)
            write_plots(pictures, metrics, state.classes, samples, state.history)
            facts = {key: results[key] for key in ("architecture", "dataset", "dataset_fingerprint", "best_checkpoint")}
            facts |= {key: f"{value:.3f}" for key, value in results["best"].items() if key in ("ap", "ap50", "epoch")}
            size_px = self.spec.data.image_size_px
            write_page(pictures, storage_name(self.run), facts, metrics, among_published(results, size_px))
            storage.publish(directory, uri)


def among_published(results: dict, size_px: int) -> str:
    """The run between models of its size that the paper publishes, as HTML."""
    parameters_m, best = results["parameters"] / 1e6, results["best"]
    ours = Published(f"this run ({results['architecture']})", None, size_px, parameters_m, results["gflops"],
                     100 * (best.get("ap") or 0.0), 100 * (best.get("ap50") or 0.0))
    rows = sorted([*neighbours(parameters_m, size_px), ours], key=lambda row: row.parameters_m)
    cells = "".join(
        f"<tr><th>{html.escape(row.model)}<td>{row.image_size_px}<td>{row.parameters_m:.1f}<td>{row.flops_g:.1f}"
        f"<td>{row.ap:.1f}<td>{'–' if row.ap50 is None else format(row.ap50, '.1f')}" for row in rows)
    return ("<h2>Among published models</h2><p>Theirs as published in arXiv:2207.02696, on COCO val2017; this run's on the "
            f"validation split of {html.escape(results['dataset'])}, so only their cost compares unless that is COCO.</p>"
            f"<table><tr><th>model<th>px<th>params M<th>GFLOPs<th>AP<th>AP50{cells}</table>")


def record(event: Event) -> bytes:
    """A TensorBoard event as a record of a TFRecord file: length, its checksum, data, its checksum."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


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
