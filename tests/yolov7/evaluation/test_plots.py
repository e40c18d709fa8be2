"""Every plot is written as PNG, shows the series it should, and stands any run: empty, short, with gaps."""

import threading

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from yolov7.evaluation import plots
from yolov7.evaluation.metrics import CocoEvaluator, Metrics


def metrics_of(num_classes: int, num_images: int = 6) -> Metrics:
    random = np.random.default_rng(0)
    evaluator = CocoEvaluator([f"class {c}" for c in range(num_classes)])
    for image_id in range(num_images):
        boxes = np.array([[10, 10, 60, 60], [100, 100, 180, 150], [200, 20, 260, 90]], float)
        labels = random.integers(0, num_classes, 3)
        detections = np.concatenate((boxes + random.normal(0, 6, (3, 4)), random.random((3, 1)), labels[:, None]), 1)
        evaluator.add(image_id, (200, 300), boxes, labels, np.zeros(3), np.full(3, 2500.0), detections)
    return evaluator.compute()


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures in the order in which they were saved."""
    saved: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (saved.append(figure), save(figure, *a, **k))[1])
    return saved


def assert_picture(path) -> None:
    """A PNG that is neither small nor blank."""
    assert path.read_bytes().startswith(b"\x89PNG")
    pixels = cv2.imread(str(path))
    assert min(pixels.shape[:2]) > 250 and pixels.std() > 1


LOG = [
    {"epoch": epoch, "train/box": 1 / epoch, "train/objectness": 2 / epoch, "train/classification": 3 / epoch}
    | ({"ap": epoch / 40, "ap50": epoch / 30, "ap_small": None} if epoch % 5 == 0 else {})
    for epoch in range(1, 21)
]


def test_losses(tmp_path, figures):
    log = [row | {"val/box": 1.5 / row["epoch"], "images_per_s": 3.0, "seconds": {"step": 1.0}} for row in LOG]
    plots.plot_losses(log, tmp_path / "losses.png")
    assert_picture(tmp_path / "losses.png")
    axes = figures[0].axes
    assert [a.get_title() for a in axes] == ["box loss", "objectness loss", "classification loss"]
    assert [[line.get_label() for line in a.lines] for a in axes] == [["train", "val"], ["train"], ["train"]]
    assert axes[0].lines[1].get_ydata()[1] == 0.75


def test_ap_passes_over_epochs_without_evaluation(tmp_path, figures):
    plots.plot_ap(LOG, tmp_path / "ap.png")
    assert_picture(tmp_path / "ap.png")
    lines = {line.get_label(): line for line in figures[0].axes[0].lines}
    assert set(lines) == {"AP", "AP50"}
    assert list(lines["AP"].get_xdata()) == [5, 10, 15, 20]
    assert list(lines["AP"].get_ydata()) == [0.125, 0.25, 0.375, 0.5]


@pytest.mark.parametrize("rows", [[], [{"epoch": 1}], [{"epoch": 1, "ap": None}], [{"train/box": 1.0, "ap": 0.5}]])
def test_logs_with_little_in_them(tmp_path, rows):
    plots.plot_losses(rows, tmp_path / "losses.png")
    plots.plot_ap(rows, tmp_path / "ap.png")
    assert_picture(tmp_path / "losses.png")
    assert_picture(tmp_path / "ap.png")


@pytest.mark.parametrize("num_classes", [1, 5, 12, 80])
def test_curves_and_confusion(tmp_path, figures, num_classes):
    metrics = metrics_of(num_classes)
    plots.plot_pr_curves(metrics, tmp_path / "pr.png")
    plots.plot_confusion(metrics, list(metrics.per_class), tmp_path / "confusion.png")
    assert_picture(tmp_path / "pr.png")
    assert_picture(tmp_path / "confusion.png")
    curves, confusion = (figure.axes[0] for figure in figures)
    seen = [c for c, of_class in enumerate(metrics.per_class.values()) if of_class.num_truth]
    assert len(curves.lines) == len(seen) + 1  # and the mean
    assert np.mean(curves.lines[-1].get_ydata()) == pytest.approx(metrics.ap50)
    shares = confusion.images[0].get_array()
    assert shares.shape == (num_classes + 1, num_classes + 1) and np.allclose(shares[seen].sum(axis=1), 1)
    labels = [label.get_text() for label in confusion.get_yticklabels()]
    assert labels[-1] == "background" and len(labels) <= 41


def test_nothing_to_show_still_makes_a_picture(tmp_path):
    metrics = CocoEvaluator(["cat", "dog"]).compute()
    plots.plot_pr_curves(metrics, tmp_path / "pr.png")
    plots.plot_confusion(metrics, ["cat", "dog"], tmp_path / "confusion.png")
    assert_picture(tmp_path / "pr.png")
    assert_picture(tmp_path / "confusion.png")


def test_threads_draw_side_by_side(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    threads = [threading.Thread(target=plots.plot_ap, args=(LOG, path)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert len({path.read_bytes() for path in paths}) == 1
