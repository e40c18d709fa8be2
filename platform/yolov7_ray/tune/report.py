"""The table of trials, the best job file, and the front of AP against FLOPs."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from .. import storage
from ..errors import JobError
from ..jobs import document
from .scheduler import pareto_front
from .spec import TuneSpec

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)


@dataclass(frozen=True)
class Trial:
    """One trial: its values and its results.json (None: not written)."""

    trial_id: str
    values: dict[str, object]
    run: str
    results: dict | None
    error: str | None

    @property
    def ap(self) -> float | None:
        """Best AP over its epochs."""
        return None if self.results is None else self.results["best"].get("ap")

    def row(self) -> dict:
        """Its row of trials.json."""
        results = self.results or {}
        return {"trial": self.trial_id, "values": self.values, "ap": self.ap, "run": self.run, "error": self.error,
                "ap50": results.get("best", {}).get("ap50"), "gflops": results.get("gflops"),
                "parameters": results.get("parameters"), "epochs": len(results.get("epochs", []))}


def write_report(run: str, spec: TuneSpec, trials: list[Trial]) -> dict:
    """Write trials.json, best.yaml and front.png into ``run``, print the table and return the best trial's row."""
    scored = sorted((t for t in trials if t.ap is not None), key=lambda t: (-t.ap, t.trial_id))
    if not scored:
        errors = [t.error.strip().splitlines()[-1] for t in trials if t.error]
        raise JobError(f"run {run}", f"none of {len(trials)} trials reached an evaluation",
                       errors[0] if errors else "raise trials or epochs")
    best = scored[0]
    job = spec.trial(best.values).model_dump(mode="json", exclude_none=True)
    job["storage"] = spec.train.storage
    points = [(t.ap, t.results["gflops"]) for t in scored]
    front = pareto_front(points)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "best.yaml").write_text(
            f"# Best of {len(trials)} trials: AP {best.ap:.4f} ({best.run})\n" + document.dump(job))
        plot_front(points, front, Path(directory, "front.png"))
        storage.upload_directory(directory, run)
    rows = [t.row() | {"on_front": i in front} for i, t in enumerate(scored)]
    rows += [t.row() | {"on_front": False} for t in trials if t.ap is None]
    storage.write_json(storage.join(run, "trials.json"), rows)
    print(table(rows))
    return rows[0]


def table(rows: list[dict]) -> str:
    """Trials by falling AP; * marks the front."""
    paths = list(rows[0]["values"])
    header = ["", "trial", "AP", "AP50", "GFLOPs", "epochs", *paths]
    lines = [["*" if row["on_front"] else "", row["trial"], *map(_number, (row["ap"], row["ap50"], row["gflops"])),
              str(row["epochs"]), *(_number(row["values"][path]) for path in paths)] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
                     for line in [header, *lines])


def _number(value: object) -> str:
    return "–" if value is None else format(value, ".4g") if isinstance(value, float) else str(value)


def plot_front(points: list[tuple[float, float]], front: list[int], path: Path) -> None:
    """AP against GFLOPs, the front joined by a line."""
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    axes.scatter([flops for _, flops in points], [ap for ap, _ in points], color="#999999", label="trials")
    axes.plot([points[i][1] for i in front], [points[i][0] for i in front], "o-", color="#0072b2", label="front")
    axes.set(xlabel="GFLOPs", ylabel="AP", title="AP against cost")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
