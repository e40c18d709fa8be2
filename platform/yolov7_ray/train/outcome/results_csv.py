"""results.csv: a row for each epoch, with the same columns in every run."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = ("train/box", "train/objectness", "train/classification", "precision", "recall", "f1", "confidence", "ap", "ap50",
           "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
           "learning_rate", "images_per_s", "num_images", "skipped_updates")
STAGES = ("fetch", "step", "synchronize", "evaluate", "save", "report")
COLUMNS = ("epoch", "seconds", *FIGURES, *(f"seconds/{stage}" for stage in STAGES))
"""seconds: since the start of the first epoch. What was not measured is empty."""


def results_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text, from the rows of a run's epochs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    seconds = 0.0
    for row in rows:
        spent = of_stages(row["seconds"])
        seconds += sum(spent.values())
        figures = {key: row.get(key) for key in FIGURES} | {f"seconds/{stage}": spent.get(stage) for stage in STAGES}
        writer.writerow({"epoch": row["epoch"], "seconds": round(seconds, 3)} | {
            key: f"{value:.6g}" if isinstance(value, float) else value for key, value in figures.items()})
    return text.getvalue()


def of_stages(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each stage of an epoch, its parts together; without what loaders do meanwhile, the parts of fetch."""
    spent: dict[str, float] = {}
    for name, value in seconds.items():
        stage, _, part = name.partition("/")
        if stage != "fetch" or not part:
            spent[stage] = spent.get(stage, 0.0) + value
    return spent
