"""Output of a run for its users: results.json, TensorBoard events, plots and a page that shows them."""

import json
import tempfile
from pathlib import Path

from tensorboardX import SummaryWriter

from yolov7.evaluation.metrics import Metrics
from yolov7.training.state import TrainState

from .. import storage
from ..data.reading.dataset import ArrowDataset
from ..evaluate.report import Samples, storage_name, write_page, write_plots
from .checkpoints import checkpoint_name
from .spec import TrainSpec


class RunLog:
    """Writes the run's own log after every epoch; Ray's keeps only rows whose checkpoint is retained."""

    def __init__(self, run: str, spec: TrainSpec, train_set: ArrowDataset) -> None:
        self.run, self.spec, self.train_set = run, spec, train_set
        self._directory = Path(tempfile.mkdtemp(prefix="yolov7-run-"))
        self._events = SummaryWriter(str(self._directory / "tensorboard"))

    def write(self, state: TrainState, metrics: Metrics | None, samples: Samples,
              cost: dict[str, float], checkpoints: set[str]) -> None:
        """Record the last epoch; with ``metrics`` after the last one, the plots and the page as well.

        ``checkpoints`` are the names of those that are complete in storage.
        """
        row = state.history[-1]
        for key, value in row.items():
            if isinstance(value, (int, float)) and key != "epoch":
                self._events.add_scalar(key, value, row["epoch"])
        for stage, seconds in row["seconds"].items():
            self._events.add_scalar(f"seconds/{stage}", seconds, row["epoch"])
        self._events.flush()
        results = summarize(state, self.spec, self.train_set, metrics, checkpoints) | cost
        (self._directory / "results.json").write_text(json.dumps(results, indent=1))
        if metrics is not None and state.epoch == self.spec.epochs:
            pictures = self._directory / "report"
            pictures.mkdir(exist_ok=True)
            write_plots(pictures, metrics, state.classes, samples, state.history)
            facts = {key: results[key] for key in ("architecture", "dataset", "dataset_fingerprint", "best_checkpoint")}
            facts |= {key: f"{value:.3f}" for key, value in results["best"].items() if key in ("ap", "ap50", "epoch")}
            write_page(pictures, storage_name(self.run), facts, metrics)
        storage.upload_directory(self._directory, self.run)


def summarize(state: TrainState, spec: TrainSpec, train_set: ArrowDataset, metrics: Metrics | None,
              checkpoints: set[str]) -> dict:
    """results.json: best and last checkpoint, every epoch's row, model, data and spec."""
    saved = [row for row in state.history if checkpoint_name(row["epoch"]) in checkpoints]
    best = max(saved, key=lambda row: (row.get("ap") or -1.0, row["epoch"]), default=None)
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
