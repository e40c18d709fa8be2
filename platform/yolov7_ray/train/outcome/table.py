"""A finished run in a table, for the terminal and for logs."""

from collections.abc import Mapping
from typing import Any

from ...cluster.resources import plural
from ...evaluate.summary import summary_table, text
from ...jobs.page.figures import duration
from .results_csv import of_stages

FIGURES = (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"), ("small", "ap_small"), ("medium", "ap_medium"), ("large", "ap_large"))


def run_table(results: Mapping[str, Any]) -> list[str]:
    """Lines from results.json: the best epoch, the last evaluation by class, and where the time went."""
    rows, best = results["epochs"], results["best"]
    by = results["spec"]["checkpoint"]["best_by"]
    lines = []
    if best.get("ap") is not None:
        figures = "  ".join(f"{name} {text(best.get(key))}" for name, key in FIGURES)
        lines.append(f"best epoch, by {by}: {best['epoch']} of {len(rows)}\n  {figures}")
    if results["metrics"] is not None:
        evaluated = max((row["epoch"] for row in rows if "ap" in row), default=rows[-1]["epoch"])
        lines += [f"after epoch {evaluated}:", *summary_table(results["metrics"])]
    spent: dict[str, float] = {}
    for row in rows:
        for stage, seconds in of_stages(row["seconds"]).items():
            spent[stage] = spent.get(stage, 0.0) + seconds
    whole = sum(spent.values()) or 1.0
    shares = ", ".join(f"{stage} {seconds / whole:.0%}" for stage, seconds in sorted(spent.items(), key=lambda item: -item[1]))
    epochs = plural(len(rows), "epoch")
    return [*lines, f"time: {duration(whole)} in {epochs}: {shares}"]
