"""What a search leaves behind: its table, the best job file, the front, and what later steps of a pipeline take."""

from typing import Any

from ... import storage
from ...errors import JobError
from ..scheduler import ROWS, last_line
from .front import FOLDER, write_front, write_job
from .page import PAGE, Page
from .view import SearchView, label, number, short_names

BEST_JOB = "best.yaml"


def write_outcome(view: SearchView) -> dict[str, Any]:
    """Write trials.json, best.yaml, front/ and the page into its directory, print the table; return the job's outputs.

    JobError if no trial was evaluated.
    """
    run, spec, rows, best = view.run, view.spec, view.rows, view.best
    if best is None:
        errors = [last_line(row["error"]) for row in rows if row.get("error")]
        errors += [row["reason"] for row in rows if row["status"] == "rejected"]
        raise JobError(f"run {run}", f"none of {len(rows)} trials reached an evaluation",
                       errors[0] if errors else "raise budget.trials or train.epochs")
    storage.write_json(storage.join(run, ROWS), ranked_rows(view))
    write_job(storage.join(run, BEST_JOB), spec, best, view)
    write_front(run, view)
    Page(run).write(view)
    print(table(view))
    return {"run": run, "best_job": storage.join(run, BEST_JOB), "front": storage.join(run, FOLDER),
            "checkpoint": best["checkpoint"], "model": best["run"], "best": dict(best),
            "report": storage.join(run, PAGE)}


def ranked_rows(view: SearchView) -> list[dict[str, Any]]:
    """Rows of trials.json: the best first, with whether each is on the front."""
    front = {row["trial"] for row in view.front}
    return [dict(row) | {"on_front": row["trial"] in front} for row in view.ranked]


def table(view: SearchView) -> str:
    """All trials, the best first; * marks the front."""
    names, front = short_names(list(view.spec.search)), {row["trial"] for row in view.front}
    header = ["", "trial", *map(label, view.objectives), "epochs", "ended", *names.values()]
    lines = [["*" if row["trial"] in front else "", row["trial"],
              *(number(view.value(row, figure)) for figure in view.objectives), str(row["epoch"]), row["status"],
              *(number(row["values"].get(path)) for path in names)] for row in view.ranked]
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
                     for line in [header, *lines])
