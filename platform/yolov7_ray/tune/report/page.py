"""The page of a search: one HTML file beside its trials, written anew as they come, that works from disk."""

import html
from collections.abc import Sequence
from pathlib import Path

from ... import storage
from ...errors import NotFound
from ...jobs import document
from ...jobs.page.axis import Axis
from ...jobs.page.document import SORTED_TABLES, Tile
from ...jobs.page.document import document as html_document
from ...program import command
from ..distributions import LogUniform
from ..objectives import CLASS_PREFIX, COSTS
from ..search.fronts import hypervolume
from .charts import Curve, Point, bars, curves, parallel, scatter
from .importance import importances
from .style import STYLE
from .table import trials_table
from .view import STATUSES, Row, SearchView, duration, label, number, short_names

PAGE = "report/index.html"
"""In a search's directory."""
JOB_FILE = "search.yaml"
"""In a search's directory: the job that made it."""
CLASS_AP = "class_ap"
"""In a row of an epoch: AP of each class, in the order of the classes."""
SCRIPT = SORTED_TABLES + Path(__file__).with_name("page.js").read_text()

Epochs = list[dict]


class Page:
    """Writes the page of the search in the directory ``run``; of trials that went no further nothing is read again."""

    def __init__(self, run: str) -> None:
        self.run = run
        self._epochs: dict[tuple[str, int], Epochs] = {}

    def write(self, view: SearchView) -> None:
        """Write the page, and the job file that it names. StorageError if that is not possible."""
        if not self._epochs:
            job = view.spec.model_dump(mode="json", exclude_none=True)
            storage.write_bytes(storage.join(self.run, JOB_FILE), document.dump(job).encode())
        storage.write_bytes(storage.join(self.run, PAGE), page(view, self._all_epochs(view)).encode())

    def _all_epochs(self, view: SearchView) -> dict[str, Epochs]:
        """Trial -> rows of its epochs."""
        known = self._epochs
        self._epochs = {key: known[key] if key in known else _read_epochs(row["run"]) for row in view.rows
                        if (key := (row["trial"], row["epoch"]))[1]}
        return {trial: epochs for (trial, _), epochs in self._epochs.items()}


def _read_epochs(run: str) -> Epochs:
    """Rows of the epochs of a trial, with the AP of each class as a figure."""
    try:
        results = storage.read_json(storage.join(run, "results.json"))
    except NotFound:
        return []
    return [row | {f"{CLASS_PREFIX}{name}": ap for name, ap in zip(results.get("classes", ()), row.get(CLASS_AP) or ())}
            for row in results.get("epochs", ())]


def page(view: SearchView, epochs: dict[str, Epochs]) -> str:
    """The HTML document. ``epochs``: trial -> rows of its epochs, as in results.json."""
    name = view.run.rstrip("/").rpartition("/")[2] or "search"
    learning = {trial: [(row["epoch"], row[view.leading]) for row in rows if row.get(view.leading) is not None]
                for trial, rows in epochs.items()}
    goals = ", ".join([*(f"{label(figure)} {direction}" for figure, direction in view.objectives.items()),
                       *(f"{label(figure)} {bound}" for figure, bound in view.spec.constraints.items())])
    facts = f"{view.run} · {view.spec.train.dataset} · {goals} · at most {view.spec.train.epochs} epochs a trial"
    charts = [_front(view), _learning(view, learning), _progress(view), _importance(view, learning), _parallel(view)]
    values = _schedules(view) if view.spec.algorithm == "population" else _slices(view)
    parts = [("charts", "Results", f"<div class=charts>{''.join(charts)}</div>" if view.best else ""),
             ("values", "Values", f"<div class=charts>{values}</div>" if view.best else ""),
             ("trials", "Trials", f"<div class='card wide'>{trials_table(view)}</div>" if view.rows else ""),
             ("commands", "Commands", _commands(view))]
    return html_document(f"Search · {name}", name, facts, _tiles(view), parts, style=STYLE, script=SCRIPT)


def _tiles(view: SearchView) -> list[Tile]:
    counts = ", ".join(f"{view.counts[status]} {status}" for status in STATUSES if view.counts[status])
    tiles = [(f"{view.num_begun} of {view.num_trials}", "trials", counts)]
    if view.best is not None:
        unfinished = "" if view.front else ", unfinished"
        tiles.append((number(view.value(view.best, view.leading)), f"best {label(view.leading)}",
                      f"trial {view.best['trial']}{unfinished}"))
    if len(view.objectives) > 1:
        tiles.append((f"{len(view.front)}", "models on the front", f"{len(view.hopeful)} unfinished are as good so far"
                      if view.hopeful else ""))
    if view.budget:
        share = f"{view.spent / view.full:.0%} of training every trial in full" if view.full else ""
        tiles.append((f"{view.spent / view.budget:.0%}", "of the budget", share))
    if view.eta_s is not None and any(row["status"] == "running" for row in view.rows):
        tiles.append((duration(view.eta_s), "left, about", f"{duration(view.elapsed_s)} so far"))
    return tiles


# --- charts ---------------------------------------------------------------------------------------------


def _card(title: str, text: str, chart: str, across: bool = False) -> str:
    return (f"<figure class='card{' across' * across}'><h3>{title}</h3><p class=quiet>{html.escape(text)}</p>"
            f"{chart}</figure>")


def classes(view: SearchView, row: Row) -> str:
    """How a trial is drawn: on the front, trained in full, or open, and then whether it may join the front."""
    if any(row is member for member in view.front):
        return "trained front"
    if any(row is member for member in view.hopeful):
        return "open hopeful"
    return "trained" if row["status"] in ("trained", "finalist") else "open"


def tip(view: SearchView, row: Row) -> str:
    """What is known of a trial, in lines."""
    names = short_names(list(row["values"]))
    figures = ", ".join(f"{label(figure)} {number(view.value(row, figure))}" for figure in view.objectives)
    values = "\n".join(f"{name}: {number(row['values'][path])}" for path, name in names.items())
    return f"trial {row['trial']}, {row['status']}, epoch {row['epoch']}\n{figures}\n{values}"


def _drawn(view: SearchView, x: str, y: str) -> list[Point]:
    """The trials that have both figures; those of the front last, on top."""
    points = [Point(row["trial"], view.value(row, x), view.value(row, y), classes(view, row), tip(view, row),
                    row.get("spread", {}).get(y) or 0.0)
              for row in view.rows if view.value(row, x) is not None and view.value(row, y) is not None]
    return sorted(points, key=lambda point: "front" in point.classes)


def _on_top(view: SearchView, rows: Sequence[Row]) -> list[Row]:
    """The rows in the order of drawing: those of the front last."""
    return sorted(rows, key=lambda row: "front" in classes(view, row))


def _front(view: SearchView) -> str:
    """A chart of the first objective against each other one."""
    first, *others = view.objectives
    text = "Filled: trained in full; rings: not, orange where none is better so far"
    if any(row.get("spread") for row in view.rows):
        text += "; bars: standard deviation over seeds"
    cards = []
    for other in others:
        points = _drawn(view, other, first)
        if points:
            axes = (Axis.of([point.x for point in points], log=other in COSTS),
                    Axis.of([point.y + sign * point.spread for point in points for sign in (-1, 1)]))
            front = [point for point in points if "front" in point.classes] if len(others) == 1 else []
            title = "The front" + (f": {label(first)} against {label(other)}" if len(others) > 1 else "")
            cards.append(_card(title, text, scatter(points, *axes, (label(other), label(first)), front)))
    return "".join(cards)


def _learning(view: SearchView, learning: dict[str, list[tuple[int, float]]]) -> str:
    """Curves of the first objective; a dashed line at every rung."""
    rows = [row for row in _on_top(view, view.rows) if learning.get(row["trial"])]
    if not rows:
        return ""
    lines = [Curve(row["trial"], learning[row["trial"]], classes(view, row), tip(view, row)) for row in rows]
    rungs = sorted({epoch for _, _, epoch in view.history} - {view.spec.train.epochs})
    axes = (Axis.of([0, view.spec.train.epochs, *(row["epoch"] for row in rows)], zero=True, whole=True),
            Axis.of([value for line in lines for _, value in line.points]))
    what = ("generations, after which the worst go on from the best" if view.spec.algorithm == "population" else
            "rungs, where trials pause and the better go on")
    chart = curves(lines, *axes, ("epoch", label(view.leading)), [(rung, "") for rung in rungs])
    return _card("Learning", f"{label(view.leading)} after each epoch; dashed: {what}", chart)


def _progress(view: SearchView) -> str:
    """Hypervolume of what is trained in full, over compute; with one objective the best value."""
    points = progress_over_compute(view)
    if not points:
        return ""
    single = len(view.objectives) == 1
    title = f"Best {label(view.leading)} over compute" if single else "Hypervolume over compute"
    what = "the best" if single else ("the volume that they dominate, each objective as a share from the worst that "
                                      "was seen (of AP: 0) to the best")
    full = view.full or 1.0
    lines = [Curve("", [(spent / full, value) for spent, value in points], "front", title, steps=True)]
    labels = "compute, as a share of training every trial in full", "best" if single else "hypervolume"
    marks = [(view.spec.share, "budget")] if view.spec.share < 1 else []
    axes = (Axis.of([0, view.spent / full, view.spec.share], zero=True),
            Axis.of([0, *(value for _, value in points)], zero=True))
    return _card(title, f"Of the models trained in full: {what}", curves(lines, *axes, labels, marks))


def progress_over_compute(view: SearchView) -> list[tuple[float, float]]:
    """(spent in all, hypervolume of the models trained in full by then); with one objective the best value."""
    directions, rows = list(view.objectives.values()), {row["trial"]: row for row in view.rows}
    known = [[view.value(row, figure) for figure in view.objectives] for row in view.rows]
    known = [point for point in known if None not in point]
    if not known:
        return []
    worst = [0.0 if direction == "max" else max(point[axis] for point in known)
             for axis, direction in enumerate(directions)]
    best = [(max if direction == "max" else min)(point[axis] for point in known)
            for axis, direction in enumerate(directions)]
    found, shares = [], []
    for spent, trial, epoch in view.history:
        row = rows.get(trial)
        if row is None or row["status"] != "trained" or epoch < view.spec.train.epochs:
            continue
        point = [view.value(row, figure) for figure in view.objectives]
        if None in point:
            continue
        if len(point) == 1:
            values = [point[0], *(value for _, value in found[-1:])]
            found.append((spent, (max if directions[0] == "max" else min)(values)))
        else:
            shares.append([(value - low) / (high - low or 1.0) for value, low, high in zip(point, worst, best)])
            found.append((spent, hypervolume(shares, [0.0] * len(point), ["max"] * len(point))))
    return [*found, (view.spent, found[-1][1])] if found and view.spent > found[-1][0] else found


def _importance(view: SearchView, learning: dict[str, list[tuple[int, float]]]) -> str:
    if len(view.spec.search) < 2 or view.spec.algorithm == "population":
        return ""
    shares, epoch = importances(view, learning)
    names = short_names(list(view.spec.search))
    if not shares:
        return ""
    text = f"Share of each value in whether {label(view.leading)} after epoch {epoch} is among the best (PED-ANOVA)"
    return _card("What matters", text, bars([(names[path], share) for path, share in shares.items()]))


def _parallel(view: SearchView) -> str:
    rows = [row for row in view.rows if view.value(row, view.leading) is not None]
    columns = [*view.spec.search, *view.objectives]
    if len(rows) < 2:
        return ""
    table = {path: [row["values"].get(path) for row in rows] for path in view.spec.search}
    table |= {figure: [view.value(row, figure) for row in rows] for figure in view.objectives}
    names = short_names(list(view.spec.search)) | {figure: label(figure) for figure in view.objectives}
    axes = [(names[column], _axis(view, column, table[column])) for column in columns]
    lines = [(row["trial"], [*(row["values"].get(path) for path in view.spec.search),
                             *(view.value(row, figure) for figure in view.objectives)],
              classes(view, row), tip(view, row)) for row in _on_top(view, rows)]
    chart = f"<div class=wide>{parallel(axes, lines)}</div>"
    return _card("All values together", "A line for each trial; blue: the front", chart, across=True)


def _slices(view: SearchView) -> str:
    """The first objective against each searched value."""
    cards, names = [], short_names(list(view.spec.search))
    rows = _on_top(view, [row for row in view.rows if view.value(row, view.leading) is not None])
    for path, name in names.items():
        points = [Point(row["trial"], row["values"][path], view.value(row, view.leading), classes(view, row),
                        tip(view, row)) for row in rows if row["values"].get(path) is not None]
        if points:
            axes = _axis(view, path, [point.x for point in points]), Axis.of([point.y for point in points])
            cards.append(_card(html.escape(name), path, scatter(points, *axes, (name, label(view.leading)))))
    return "".join(cards)


def _schedules(view: SearchView) -> str:
    """Each searched value over the epochs of a population's trials, along the descent of their weights."""
    cards, end = [], Axis.of([0, view.spec.train.epochs], zero=True, whole=True)
    rows = _on_top(view, [row for row in view.rows if row["epoch"] and row["values"]])
    text = "over epochs; a line jumps where a trial goes on from another's weights"
    for path, name in short_names(list(view.spec.search)).items():
        lines = []
        for row in rows:
            parts = row.get("lineage") or [{"after_epoch": 0, "values": row["values"]}]
            points = [(part["after_epoch"], part["values"][path]) for part in parts]
            lines.append(Curve(row["trial"], [*points, (max(row["epoch"], points[-1][0]), points[-1][1])],
                               classes(view, row), tip(view, row), steps=True))
        if lines:
            axis = _axis(view, path, [value for line in lines for _, value in line.points])
            cards.append(_card(html.escape(name), f"{path} {text}", curves(lines, end, axis, ("epoch", name))))
    return "".join(cards)


def _axis(view: SearchView, column: str, values: Sequence) -> Axis:
    """Of a searched value, or a figure; where there are a few values to choose from, those are its ticks."""
    searched = view.spec.search.get(column)
    axis = Axis.of(values, log=isinstance(searched, LogUniform) or column in COSTS)
    return axis.ticked([value for value in searched.values() or () if value in values] if searched else None)


def _commands(view: SearchView) -> str:
    """How the search was made, and how it goes on."""
    run, name = view.run, view.run.rstrip("/").rpartition("/")[2]
    lines = ["# go on with this search; with more trials", f"{command(f'{run}/{JOB_FILE}')} --resume {name} "
             f"--set budget.trials={2 * view.spec.budget.trials}",
             "# train the best anew, longer", command(f"{run}/best.yaml --set epochs=300"),
             "# publish every model of the front, and serve them",
             command(f"jobs/publish-detector.yaml --set model={run}/front")]
    return f"<div class=card><pre>{html.escape(chr(10).join(lines))}</pre></div>"
