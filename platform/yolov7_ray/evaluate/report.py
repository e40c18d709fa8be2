"""Report of an evaluation: the page, and its plots as PNG."""

from pathlib import Path

from yolov7.evaluation.metrics import Metrics

from ..jobs.page.document import Tile, document
from .page.parts import parts, tiles
from .page.pictures import Gallery
from .page.style import SCRIPT, STYLE


def write_plots(directory: Path, metrics: Metrics, class_names: list[str], history: list[dict] | None = None) -> None:
    """PR curves, confusion matrix and, with a history, losses and AP over epochs, as PNG for slides and papers."""
    from yolov7.evaluation import plots  # matplotlib takes as long to import as the rest: not before the first step

    if history:
        plots.plot_losses(history, directory / "losses.png")
        plots.plot_ap(history, directory / "ap.png")
    plots.plot_pr_curves(metrics, directory / "pr-curves.png")
    plots.plot_confusion(metrics, class_names, directory / "confusion-matrix.png")


def evaluation_page(run: str, model: str, dataset: str, metrics: Metrics, class_names: list[str],
                    gallery: Gallery | None) -> str:
    """The HTML document of an evaluate job; ``dataset`` with its split."""
    counted: list[Tile] = [(f"{metrics.num_images:,}", "images", f"{metrics.num_objects:,} objects")]
    return document(f"Evaluation · {storage_name(run)}", storage_name(run), f"{model} · {dataset}",
                    [*tiles(metrics), *counted], parts(metrics, class_names, gallery), style=STYLE, script=SCRIPT)


def storage_name(run: str) -> str:
    """Last part of a run's URI."""
    return run.rstrip("/").rsplit("/", 1)[-1]
