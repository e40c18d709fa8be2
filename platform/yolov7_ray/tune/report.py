"""The table of trials, the best job file, and a picture: AP against FLOPs, or against each value that is searched."""

import math
import tempfile
from pathlib import Path

import matplotlib

from .. import storage
from ..errors import JobError
from ..jobs import document
from .distributions import LogUniform
from .spec import TuneSpec
from .trial import Trial

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)

GREY, BLUE = "#999999", "#0072b2"


def write_report(run: str, spec: TuneSpec, trials: list[Trial]) -> dict:
    """Write trials.json, best.yaml and a picture into ``run``, print the table and return the best trial's row.

    The picture is front.png if trials differ in cost, else values.png.
    """
    scored = sorted((t for t in trials if t.ap is not None), key=lambda t: (-t.ap, t.trial_id))
    if not scored:
        errors = [t.error.strip().splitlines()[-1] for t in trials if t.error]
        raise JobError(f"run {run}", f"none of {len(trials)} trials reached an evaluation",
                       errors[0] if errors else "raise budget.trials or train.epochs")
    best = scored[0]
    job = spec.trial(best.values).model_dump(mode="json", exclude_none=True)
    points = [(t.ap, t.results["gflops"]) for t in scored]
    front = pareto_front(points)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "best.yaml").write_text(
            f"# Best of {len(trials)} trials: AP {best.ap:.4f} ({best.run})\n" + document.dump(job))
        if spec.searches_architecture:
            plot_front(points, front, Path(directory, "front.png"))
        else:
            plot_values(spec, scored, Path(directory, "values.png"))
        storage.upload_directory(directory, run)
    rows = [t.row() | {"on_front": i in front} for i, t in enumerate(scored)]
    rows += [t.row() | {"on_front": False} for t in trials if t.ap is None]
    storage.write_json(storage.join(run, "trials.json"), rows)
    print(table(rows))
    return rows[0]


def pareto_front(points: list[tuple[float, float]]) -> list[int]:
    """Indices of the (AP, FLOPs) points that no other dominates: AP higher, FLOPs lower."""
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    front, best = [], float("-inf")
    for index in order:
        if points[index][0] > best:
            front.append(index)
            best = points[index][0]
    return front


def table(rows: list[dict]) -> str:
    """Trials by falling AP; * marks the front."""
    paths = list(rows[0]["values"])
    header = ["", "trial", "AP", "AP50", "GFLOPs", "epochs", "ended", *paths]
    lines = [["*" if row["on_front"] else "", row["trial"], *map(_number, (row["ap"], row["ap50"], row["gflops"])),
              str(row["epochs"]), "failed" if row["error"] else "stopped" if row["stopped"] else "trained",
              *(_number(row["values"][path]) for path in paths)] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
                     for line in [header, *lines])


def _number(value: object) -> str:
    return "–" if value is None else format(value, ".4g") if isinstance(value, float) else str(value)


def plot_front(points: list[tuple[float, float]], front: list[int], path: Path) -> None:
    """AP against GFLOPs, the front joined by a line."""
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    axes.scatter([flops for _, flops in points], [ap for ap, _ in points], color=GREY, label="trials")
    axes.plot([points[i][1] for i in front], [points[i][0] for i in front], "o-", color=BLUE, label="front")
    axes.set(xlabel="GFLOPs", ylabel="AP", title="AP against cost")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def plot_values(spec: TuneSpec, trials: list[Trial], path: Path) -> None:
    """AP against each searched value, a panel per key; trials that were stopped early are hollow."""
    columns = min(3, len(spec.search))
    rows = math.ceil(len(spec.search) / columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(4 * columns, 3 * rows), layout="constrained",
                                     squeeze=False, sharey=True)
    for axes in panels.flat[len(spec.search):]:
        axes.set_axis_off()
    for axes, (key, distribution) in zip(panels.flat, spec.search.items()):
        values = [trial.values[key] for trial in trials]
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            values = list(map(str, values))
        axes.scatter(values, [trial.ap for trial in trials], edgecolors=BLUE,
                     facecolors=["none" if trial.status != "trained" else BLUE for trial in trials])
        if isinstance(distribution, LogUniform):
            axes.set_xscale("log")
        axes.set_xlabel(key)
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("AP")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
