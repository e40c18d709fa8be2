"""What is known before a search: the train job's own values, and what earlier searches learnt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import storage
from ...cluster.resources import plural
from ...errors import JobError, NotFound
from ...jobs.resumption import changes, resolved
from ..objectives import COSTS
from ..spec import DEFAULTS, JOB_RECORD, MAY_CHANGE, TuneSpec
from .fronts import non_dominated, ranked
from .history import Known
from .space import Space, Values

MAX_FIRST = 5
"""How many of the best points of an earlier search are tried first."""
TRIALS = "trials.json"
"""In a search's directory: a row for each trial."""


@dataclass
class Starts:
    """Points to try before all others, trials to tell the algorithm, and both in words."""

    first: list[Values] = field(default_factory=list)
    earlier: list[Known] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def starts(spec: TuneSpec, fingerprint: str | None) -> Starts:
    """What `start_with` names. ``fingerprint``: of the dataset, None: not known yet.

    JobError if a directory holds no search.
    """
    found = Starts()
    for name in spec.start_with:
        if name == DEFAULTS:
            _add_defaults(spec, found)
        else:
            _add_earlier(spec, name, fingerprint, found)
    return found


def _add_defaults(spec: TuneSpec, found: Starts) -> None:
    train = spec.train.model_dump(mode="json")
    if train["model"]["depth"] is train["model"]["width"] is None:
        train["model"] |= {"depth": 1.0, "width": 1.0}
    values, moved = _nearest(Space(spec.search), {path: _at(train, path) for path in spec.search})
    if values is None:
        found.notes.append(f"{DEFAULTS}: left out, {moved[0]} is no value of the search")
        return
    found.first.append(values)
    note = f"; nearest values of the search for {', '.join(moved)}" if moved else ""
    found.notes.append(f"{DEFAULTS}: first{note}")


def _add_earlier(spec: TuneSpec, uri: str, fingerprint: str | None, found: Starts) -> None:
    try:
        record = storage.read_json(storage.join(uri, JOB_RECORD))
        rows = storage.read_json(storage.join(uri, TRIALS))
    except NotFound:
        raise JobError(f"start_with: {uri}", "is not the directory of a finished search",
                       f"give one that holds {JOB_RECORD} and {TRIALS}, or {DEFAULTS}") from None
    train, space, objectives = resolved(TuneSpec, record["job"])["train"], Space(spec.search), spec.objectives
    trained = [known for row in rows if (known := _trained(row, train, spec)) is not None]
    steady = [known for row in rows if not row.get("lineage") and (known := _trained(row, train, spec)) is not None]
    points = [known.objectives(list(objectives), next(iter(known.rungs))) for known in trained]
    front = set(non_dominated(points, list(objectives.values())))
    best = [trained[index] for index in ranked(points, list(objectives.values())) if index in front][:MAX_FIRST]
    first = [values for known in best if (values := _nearest(space, known.values)[0]) is not None]
    found.first += first
    note = f"{uri}: {plural(len(first), 'point')} of its front first"
    if differs := _difference(spec, train, record["fingerprint"], fingerprint):
        found.notes.append(f"{note}; its results are not compared, {differs} differs")
        return
    told = [known for known in steady if space.contains(known.values)]
    found.earlier += told
    lacking = f", {len(steady) - len(told)} outside the search left out" if len(told) < len(steady) else ""
    lacking += f", {len(trained) - len(steady)} whose values changed left out" if len(steady) < len(trained) else ""
    found.notes.append(f"{note}; {plural(len(told), 'trained trial')} told to the algorithm{lacking}")


def _trained(row: Mapping[str, Any], train: dict, spec: TuneSpec) -> Known | None:
    """A row of trials.json, if it was trained in full and has the objectives; keys that were fixed there included."""
    figures = {name: row[name] for name in ("ap", "ap50", *COSTS) if row.get(name) is not None}
    figures |= row.get("figures") or {}
    if row.get("error") or row.get("stopped") or row.get("status", "trained") != "trained" \
            or any(figures.get(name) is None for name in spec.objectives):
        return None
    values = {path: row["values"].get(path, _at(train, path)) for path in spec.search}
    costs = {name: value for name, value in figures.items() if name in COSTS}
    return Known(values, costs, {row["epochs"]: {name: figures[name] for name in figures if name not in COSTS}})


def _difference(spec: TuneSpec, train: dict, its_fingerprint: str, fingerprint: str | None) -> str | None:
    """What makes AP incomparable with an earlier search's."""
    if fingerprint != its_fingerprint:
        return "the dataset"
    free = [key.removeprefix("train.") for key in MAY_CHANGE if key.startswith("train.")]
    found = changes(train, spec.train.model_dump(mode="json"))
    return next((change.key for change in found if not change.within([*free, *spec.search])), None)


def _nearest(space: Space, values: Mapping[str, Any]) -> tuple[Values | None, list[str]]:
    """The nearest point of the space, None if a value has no place in it, and the keys whose values differ from it."""
    nearest = {path: axis.nearest(values[path]) for path, axis in space.axes.items()}
    lost = [path for path, axis in space.axes.items()
            if nearest[path] is None and not (values[path] is None and axis.values and None in axis.values)]
    if lost:
        return None, lost
    return nearest, [path for path in nearest if nearest[path] != values[path]]


def _at(train: dict, path: str) -> Any:
    """The value at a dotted path; None if there is none."""
    for key in path.split("."):
        train = train.get(key) if isinstance(train, dict) else None
    return train
