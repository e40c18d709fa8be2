"""The members of a search's front: their names, and a job file for each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ... import storage
from ...jobs import document
from ...registry.front import FRONT_FILE, Member
from ..spec import TuneSpec
from .view import Row, SearchView, label, number

FOLDER = "front"
_BY_SIZE = {"model.architecture": "{}", "model.depth": "d{:03.0f}", "model.width": "w{:03.0f}",
            "data.image_size_px": "{}px"}
"""Keys by which models differ in size -> part of a name; factors in hundredths."""


def names_of(rows: Sequence[Row]) -> list[str]:
    """A name for each trial, unique: by what its size depends on (d033-w050-160px), else ``best``, ``best-2``, …"""
    names = [name_of(row["values"]) for row in rows]
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[index] = f"{name}-{seen[name]}"
    return names


def name_of(values: Mapping[str, Any]) -> str:
    """A trial's name by its size."""
    parts = [form.format(values[path] * 100 if isinstance(values[path], float) or path in ("model.depth", "model.width")
                         else values[path]) for path, form in _BY_SIZE.items() if values.get(path) is not None]
    return "-".join(parts) or "best"


def write_job(uri: str, spec: TuneSpec, row: Row, view: SearchView) -> None:
    """A train job file that says where its values come from."""
    figures = ", ".join(f"{label(figure)} {number(view.value(row, figure))}" for figure in view.objectives)
    job = spec.alone(dict(row["values"]))
    text = (f"# Trial {row['trial']} of {len(view.rows)}: {figures} after epoch {row['epoch']} ({row['run']})\n"
            "#\n#   python submit.py THIS-FILE --set epochs=300   # trains it anew, longer\n" + _schedule(row)
            + document.dump(job.model_dump(mode="json", exclude_none=True)))
    storage.write_bytes(uri, text.encode())


def _schedule(row: Row) -> str:
    """As comments: the values with which a trial of a population was trained, one part after the other."""
    parts = row.get("lineage")
    if not parts:
        return ""
    ends = [*(part["after_epoch"] for part in parts[1:]), row["epoch"]]
    lines = [f"epochs {part['after_epoch'] + 1} to {end}, as trial {part['trial']}: "
             + ", ".join(f"{path} {number(value)}" for path, value in part["values"].items())
             for part, end in zip(parts, ends)]
    return "".join(f"# {line}\n" for line in ("", "Its values changed while it was trained; below are the last ones.",
                                              *lines, f"Weights that were trained so: {row.get('checkpoint')}"))


def write_front(run: str, view: SearchView) -> list[Member]:
    """Write ``<run>/front``: a job file for each member, and front.json, from which they are published and served."""
    distinct = {tuple(view.value(row, figure) for figure in view.objectives): row
                for row in reversed(view.front or view.hopeful) if row.get("checkpoint")}  # of equals the first
    rows = list(reversed(distinct.values()))
    folder, members = storage.join(run, FOLDER), []
    for row, name in zip(rows, names_of(rows)):
        job = storage.join(folder, f"{name}.yaml")
        write_job(job, view.spec, row, view)
        members.append(Member(name, row["checkpoint"], job, row["trial"], dict(row["figures"])))
    storage.write_json(storage.join(folder, FRONT_FILE), [vars(member) for member in members])
    return members
