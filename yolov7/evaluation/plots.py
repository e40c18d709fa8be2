"""Plots of a run: losses, AP over epochs, precision-recall curves, confusion matrix; PNG by matplotlib.

Figures are built without pyplot: no window system, no global state, thread-safe. A ``path`` may be
anything that matplotlib writes to, including an open binary file.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..images.draw import PALETTE_RGB
from .metrics import Metrics

COLORS = [tuple(channel / 255 for channel in rgb) for rgb in PALETTE_RGB]
GREEN, ORANGE, SKY, VERMILION, PURPLE, BLUE, _ = COLORS
LINE_STYLES = ("-", "--", "-.", ":")
#: With more classes than this, all curves are drawn in grey without names, with their mean.
MAX_NAMED_CURVES = 12
#: With more classes than this, cells of the confusion matrix carry no numbers.
MAX_NUMBERED_CLASSES = 15
MAX_TICK_LABELS = 40

LOSS_KEY = re.compile(r"(?P<split>train|val)/(?P<term>total|box|objectness|classification)")
AP_KEY = re.compile(r"(?:val/)?(?P<name>ap50|ap75|ap_small|ap_medium|ap_large|ap)")

Row = Mapping[str, Any]


def plot_losses(rows: Sequence[Row], path: Any) -> None:
    """Loss terms per epoch, training and validation, one panel per term.

    Rows are the run's log, one dict per epoch; ``train/box``, ``val/box``, ``train/objectness`` and so on are drawn.
    """
    terms: dict[str, dict[str, str]] = {}
    for key in _logged_keys(rows):
        if match := LOSS_KEY.fullmatch(key):
            terms.setdefault(match["term"], {})[match["split"]] = key
    names = [term for term in ("total", "box", "objectness", "classification") if term in terms]
    figure = _figure(width=3.4 * max(1, len(names)), height=3.2)
    for i, term in enumerate(names):
        axes = figure.add_subplot(1, len(names), i + 1)
        for split, color, style in (("train", BLUE, "-"), ("val", VERMILION, "--")):
            if split in terms[term]:
                _draw_series(axes, rows, terms[term][split], label=split, color=color, linestyle=style)
        _style_axes(axes, f"{term} loss" if term != "total" else "loss", "epoch", "")
        axes.set_ylim(bottom=0)
        if i == 0:
            axes.legend(frameon=False)
    if not names:
        _add_message(figure, "no losses logged")
    figure.savefig(path, format="png")


def plot_ap(rows: Sequence[Row], path: Any) -> None:
    """Average precision per epoch; keys ``ap``, ``ap50``, ``ap75``, ``ap_small``, ... (or ``val/ap``, ...)."""
    keys = {match["name"]: key for key in _logged_keys(rows) if (match := AP_KEY.fullmatch(key))}
    series_styles = {
        "ap": ("AP", BLUE, "-", 2.4),
        "ap50": ("AP50", VERMILION, "--", 1.6),
        "ap75": ("AP75", GREEN, "-.", 1.6),
        "ap_small": ("AP small", SKY, ":", 1.3),
        "ap_medium": ("AP medium", PURPLE, ":", 1.3),
        "ap_large": ("AP large", ORANGE, ":", 1.3),
    }
    figure = _figure(width=6, height=4)
    if not keys:
        _add_message(figure, "no AP logged")
    else:
        axes = figure.add_subplot()
        for name, (label, color, style, width) in series_styles.items():
            if name in keys:
                _draw_series(axes, rows, keys[name], label=label, color=color, linestyle=style, linewidth=width)
        _style_axes(axes, "COCO average precision", "epoch", "")
        axes.set_ylim(0, 1)
        axes.legend(frameon=False, ncols=2)
    figure.savefig(path, format="png")


def plot_pr_curves(metrics: Metrics, path: Any) -> None:
    """Precision over recall at IoU 0.5, per class and their mean."""
    recall, precision = metrics.pr_curves
    names = list(metrics.per_class)
    defined = [c for c in range(len(names)) if not np.isnan(precision[c]).any()]
    figure = _figure(width=6, height=4.6)
    if not defined:
        _add_message(figure, "no objects, no curves")
        figure.savefig(path, format="png")
        return
    axes = figure.add_subplot()
    for i, c in enumerate(defined):
        if len(defined) <= MAX_NAMED_CURVES:
            options = {"color": COLORS[i % len(COLORS)], "linestyle": LINE_STYLES[i // len(COLORS)], "linewidth": 1.4}
            options["label"] = f"{names[c]} {metrics.per_class[names[c]].ap50:.2f}"
        else:
            options = {"color": "0.75", "linewidth": 0.7}
        axes.plot(recall, precision[c], **options)
    axes.plot(recall, precision[defined].mean(axis=0), color="black", linewidth=2.6, label=f"mean {metrics.ap50:.2f}")
    _style_axes(axes, "precision and recall at IoU 0.5 (AP50)", "recall", "precision")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, format="png")


def plot_confusion(metrics: Metrics, class_names: Sequence[str], path: Any) -> None:
    """Confusion matrix: true class (row) and predicted class (column), as shares of the row; counts where legible.

    The last row holds detections without an object, the last column objects without a detection.
    """
    counts = metrics.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [*class_names, "background"]
    side = float(np.clip(2.2 + 0.42 * len(names), 4, 12))
    figure = _figure(width=side + 1, height=side)
    axes = figure.add_subplot()
    heatmap = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(heatmap, ax=axes, fraction=0.04, label="share of the row")
    step = -(-len(names) // MAX_TICK_LABELS)
    ticks = sorted({*range(0, len(names) - step, step), len(names) - 1})
    axes.set_xticks(ticks, [names[i] for i in ticks], rotation=90)
    axes.set_yticks(ticks, [names[i] for i in ticks])
    if len(class_names) <= MAX_NUMBERED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                text_color = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=text_color, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true", title="confusion at confidence 0.25, IoU 0.45")
    figure.savefig(path, format="png")


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _add_message(figure: Figure, text: str) -> None:
    figure.text(0.5, 0.5, text, ha="center", va="center", color="0.4")


def _style_axes(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _logged_keys(rows: Sequence[Row]) -> list[str]:
    """Keys that hold a value in some row."""
    return sorted({key for row in rows for key, value in row.items() if value is not None})


def _draw_series(axes: Axes, rows: Sequence[Row], key: str, **options: Any) -> None:
    """The values under ``key`` against their epoch; epochs without one (not evaluated) are skipped."""
    points = [(row.get("epoch", i), float(row[key])) for i, row in enumerate(rows) if row.get(key) is not None]
    axes.plot(*zip(*points), marker="o" if len(points) < 15 else None, markersize=3.5, **options)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
