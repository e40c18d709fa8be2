"""An evaluation in a table for the terminal and for logs: plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_CLASSES = 20
"""Rows: of more classes the weakest are shown."""
MAX_NAME = 24


def summary_table(metrics: Mapping[str, Any]) -> list[str]:
    """Lines from ``metrics`` of results.json: all classes, then each, those with the lowest AP first; AP by size below."""
    overall, per_class = metrics["overall"], metrics["per_class"]
    rows = [("all", overall["num_objects"], overall["ap"], overall["ap50"], None, None)]
    ranked = sorted(per_class.items(), key=lambda item: (item[1]["ap"] is None, item[1]["ap"] or 0.0))
    rows += [(name if len(name) <= MAX_NAME else name[:MAX_NAME - 1] + "…", found["num_truth"], found["ap"], found["ap50"],
              found["precision"], found["recall"]) for name, found in ranked[:MAX_CLASSES]]
    lines = table(("class", "objects", "AP", "AP50", "precision", "recall"), rows)
    if len(ranked) > MAX_CLASSES:
        lines.append(f"  and {len(ranked) - MAX_CLASSES} better classes")
    sizes = [("AP75", "ap75"), ("small", "ap_small"), ("medium", "ap_medium"), ("large", "ap_large")]
    return [*lines, "  " + "  ".join(f"{name} {text(overall[key])}" for name, key in sizes)]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines with columns of one width, the first to the left, the others to the right; shares have three digits."""
    cells = [list(head), *([text(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  " + "  ".join(cell.ljust(width) if not column else cell.rjust(width)
                             for column, (cell, width) in enumerate(zip(row, widths))) for row in cells]


def text(value: object) -> str:
    """A figure of a table: 1,234, 0.123, or – where there is none."""
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(
        value, int) else str(value)
