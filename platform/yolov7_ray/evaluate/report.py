"""Report of an evaluation: plots, drawn images, and an HTML page."""

import html
from pathlib import Path

import numpy as np

from yolov7.evaluation.metrics import Metrics
from yolov7.images.batch import Batch
from yolov7.images.draw import draw_detections, draw_grid
from yolov7.images.sample import encode_image

NUM_DRAWN = 16

DRAWN_CONFIDENCE = 0.25

DRAWN_SIDE_PX = 320


class Samples:
    """The first validation images with their detections drawn."""

    def __init__(self, class_names: tuple[str, ...] | list[str]) -> None:
        self.class_names = list(class_names)
        self.images: list[np.ndarray] = []

    def add(self, batch: Batch, found: list) -> None:
        """Draw images until there are `NUM_DRAWN`; called with every evaluated batch."""
        for image, detections in zip(batch.images, found):
            if len(self.images) == NUM_DRAWN:
                return
            strong = detections[detections[:, 4] >= DRAWN_CONFIDENCE].float().cpu().numpy()
            self.images.append(draw_detections(image.permute(1, 2, 0).numpy(), strong, self.class_names,
                                               min_side_px=DRAWN_SIDE_PX))


def write_plots(directory: Path, metrics: Metrics, class_names: list[str], samples: Samples,
                history: list[dict] | None = None) -> None:
    """PR curves, confusion matrix, drawn images and, with a history, losses and AP over epochs."""
    from yolov7.evaluation import plots  # matplotlib takes as long to import as the rest: not before the first step

    if history:
        plots.plot_losses(history, directory / "losses.png")
        plots.plot_ap(history, directory / "ap.png")
    plots.plot_pr_curves(metrics, directory / "pr-curves.png")
    plots.plot_confusion(metrics, class_names, directory / "confusion-matrix.png")
    if samples.images:
        (directory / "detections.jpg").write_bytes(encode_image(draw_grid(samples.images), ".jpg"))


def write_page(directory: Path, title: str, facts: dict[str, object], metrics: Metrics, more: str = "") -> None:
    """``index.html``: facts, the AP of every class, ``more`` as HTML, and all pictures of ``directory``."""
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
        "th{text-align:left;padding-right:2rem;font-weight:500}"
        "td{padding-right:1.5rem;font-variant-numeric:tabular-nums}"
        "figure{display:inline-block;margin:1rem 1rem 0 0}img{max-width:36rem;width:100%}"
        "figcaption{color:#666}</style>"
        f"<h1>{html.escape(title)}</h1><table>{rows}</table>"
        f"<h2>Classes</h2><table><tr><th>class<th>AP<th>AP50<th>precision<th>recall<th>F1<th>objects{classes}</table>{more}"
        f"<h2>Pictures</h2>{pictures}")


def storage_name(run: str) -> str:
    """Last part of a run's URI."""
    return run.rstrip("/").rsplit("/", 1)[-1]
