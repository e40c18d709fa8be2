"""What a run leaves behind for people: results.json, TensorBoard events, plots and a page that shows them."""

import html
import json
import tempfile
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from yolov7 import plots
from yolov7.batch import Batch
from yolov7.draw import draw_detections, draw_grid
from yolov7.metrics import Metrics
from yolov7.sample import encode_image
from yolov7.state import TrainState

from .. import storage
from ..data.dataset import ArrowDataset
from ..spec import TrainSpec
from .checkpoint import checkpoint_name

NUM_DRAWN = 16
DRAWN_CONFIDENCE = 0.25
DRAWN_SIDE_PX = 320


class Samples:
    """The first validation images with their detections drawn."""

    def __init__(self, class_names: tuple[str, ...] | list[str]) -> None:
        self.class_names = list(class_names)
        self.images: list[np.ndarray] = []

    def add(self, batch: Batch, found: list) -> None:
        """Draw until there are enough; called with every evaluated batch."""
        for image, detections in zip(batch.images, found):
            if len(self.images) == NUM_DRAWN:
                return
            strong = detections[detections[:, 4] >= DRAWN_CONFIDENCE].float().cpu().numpy()
            self.images.append(draw_detections(image.permute(1, 2, 0).numpy(), strong, self.class_names,
                                               min_side_px=DRAWN_SIDE_PX))


def write_plots(directory: Path, metrics: Metrics, class_names: list[str], samples: Samples,
                history: list[dict] | None = None) -> None:
    """PR curves, confusion matrix, drawn images and, with a history, losses and AP over epochs."""
    if history:
        plots.plot_losses(history, directory / "losses.png")
        plots.plot_ap(history, directory / "ap.png")
    plots.plot_pr_curves(metrics, directory / "pr-curves.png")
    plots.plot_confusion(metrics, class_names, directory / "confusion-matrix.png")
    if samples.images:
        (directory / "detections.jpg").write_bytes(encode_image(draw_grid(samples.images), ".jpg"))


def write_page(directory: Path, title: str, facts: dict[str, object], metrics: Metrics) -> None:
    """``index.html``: facts, the AP of every class and all pictures of ``directory``."""
    rows = "".join(f"<tr><th>{html.escape(str(k))}<td>{html.escape(str(v))}" for k, v in facts.items())
    classes = "".join(
        f"<tr><th>{html.escape(name)}" + "".join(
            f"<td>{'–' if value is None else format(value, '.3f')}" for value in
            (c.ap, c.ap50, c.precision, c.recall, c.f1)) + f"<td>{c.num_truth}"
        for name, c in metrics.per_class.items())
    pictures = "".join(f'<figure><img src="{p.name}" alt="{p.stem}"><figcaption>{p.stem}</figcaption></figure>'
                       for p in sorted([*directory.glob("*.png"), *directory.glob("*.jpg")]))
    (directory / "index.html").write_text(
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>"
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}"
        "th{text-align:left;padding-right:2rem;font-weight:500}td{padding-right:1.5rem;font-variant-numeric:tabular-nums}"
        "figure{display:inline-block;margin:1rem 1rem 0 0}img{max-width:36rem;width:100%}"
        "figcaption{color:#666}</style>"
        f"<h1>{html.escape(title)}</h1><table>{rows}</table>"
        f"<h2>Classes</h2><table><tr><th>class<th>AP<th>AP50<th>precision<th>recall<th>F1<th>objects{classes}</table>"
        f"<h2>Pictures</h2>{pictures}")


class RunLog:
    """Writes the run's own record after every epoch; Ray's keeps only rows whose checkpoint is retained."""

    def __init__(self, run: str, spec: TrainSpec, train_set: ArrowDataset) -> None:
        self.run, self.spec, self.train_set = run, spec, train_set
        self._directory = Path(tempfile.mkdtemp(prefix="yolov7-run-"))
        self._events = SummaryWriter(str(self._directory / "tensorboard"))

    def write(self, state: TrainState, metrics: Metrics | None, samples: Samples,
              cost: dict[str, float], checkpoints: set[str]) -> None:
        """Record the last epoch; with ``metrics`` after the last one, the plots and the page as well.

        ``checkpoints`` are those that are whole in storage.
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


def storage_name(run: str) -> str:
    """Last part of a run's URI."""
    return run.rstrip("/").rsplit("/", 1)[-1]


def summarize(state: TrainState, spec: TrainSpec, train_set: ArrowDataset, metrics: Metrics | None,
              checkpoints: set[str]) -> dict:
    """results.json: best and last checkpoint, every epoch's row, and what was trained on what."""
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
