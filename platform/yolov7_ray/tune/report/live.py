"""The table of a running search on a terminal, and its lines in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from ...cluster.resources import plural
from ..scheduler import last_line
from .view import STATUSES, Row, SearchView, descent, duration, label, number, short_names

if TYPE_CHECKING:
    from rich.console import RenderableType

MAX_ROWS = 16
"""Trials in the table; the others are counted."""
REDRAWS_PER_S = 2
_COLOURS = {"running": "cyan", "trained": "green", "finalist": "green", "failed": "red", "rejected": "yellow"}


@contextmanager
def live_table(stream: TextIO | None = None) -> Iterator[Callable[[SearchView], None]]:
    """Yield what shows a view in place of the one before; lines that are printed meanwhile appear above it.

    Shows nothing if ``stream`` (default: standard output) is no terminal: there the lines are enough.
    """
    stream = stream or sys.stdout
    if not stream.isatty():
        yield lambda view: None
        return
    from rich.console import Console
    from rich.live import Live

    newest: list[SearchView] = []
    with Live(console=Console(file=stream, highlight=False), refresh_per_second=REDRAWS_PER_S, transient=True,
              get_renderable=lambda: rendered(newest[0]) if newest else ""):
        yield lambda view: newest.__setitem__(slice(None), [view])


def rendered(view: SearchView) -> "RenderableType":
    """The table: what runs first, then the best."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    names = short_names(list(view.spec.search))
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    for header in ("", "trial", "", "epoch"):
        table.add_column(header, no_wrap=True)
    for figure in view.objectives:
        table.add_column(label(figure), justify="right", no_wrap=True)
    for name in names.values():
        table.add_column(name, justify="right", overflow="ellipsis", no_wrap=True)
    table.add_column("", ratio=1)  # the only one that gives way
    front, hopeful = {row["trial"] for row in view.front}, {row["trial"] for row in view.hopeful}
    shown = sorted(view.ranked, key=lambda row: (row["status"] != "running", row["trial"] not in front))[:MAX_ROWS]
    for row in shown:
        mark = "●" if row["trial"] in front else "○" if row["trial"] in hopeful else ""
        table.add_row(mark, row["trial"], row["status"], epochs_of(row, view),
                      *(number(view.value(row, figure)) for figure in view.objectives),
                      *(number(row["values"].get(path)) for path in names),
                      Text(row.get("reason") or descent(row), overflow="ellipsis", no_wrap=True),
                      style=_COLOURS.get(row["status"], ""))
    more = len(view.rows) - len(shown)
    parts = [Text(progress(view), style="bold"), table]
    return Group(*parts, Text(f"and {more} more", style="dim")) if more else Group(*parts)


def epochs_of(row: Row, view: SearchView) -> str:
    """How far a trial has come of how far it could: 3/9, while it runs to the next rung 3→9/27."""
    epochs = row["rung"] if "finalist" in row else view.spec.train.epochs
    ahead = f"→{row['rung']}" if row["status"] == "running" and row["rung"] not in (row["epoch"], epochs) else ""
    return f"{row['epoch']}{ahead}/{epochs}"


def progress(view: SearchView) -> str:
    """The whole search in one line."""
    counts = ", ".join(f"{view.counts[status]} {status}" for status in STATUSES if view.counts[status])
    parts = [f"{view.num_begun} of {view.num_trials} trials" + (f": {counts}" if counts else "")]
    if view.finalists:
        done = sum(row["status"] != "running" for row in view.finalists)
        parts.append(f"{done} of {plural(len(view.finalists), 'finalist')}")
    if view.best is not None:
        best = ", ".join(f"{label(figure)} {number(view.value(view.best, figure))}" for figure in view.objectives)
        unfinished = "" if view.front else ", unfinished"
        parts.append(f"best {view.best['trial']} ({best}{unfinished})")
    if view.front:
        parts.append(f"front of {len(view.front)}")
    if view.budget:
        parts.append(f"{view.spent / view.budget:.0%} of the budget")
    if view.eta_s is not None:
        parts.append(f"about {duration(view.eta_s)} left")
    return " · ".join(parts)


def told(row: Row, view: SearchView) -> str:
    """What became of a trial; and how far the search is, where no table shows it."""
    return trial_line(row, view) + ("" if sys.stdout.isatty() else f"\n  {progress(view)}")


def trial_line(row: Row, view: SearchView) -> str:
    """What became of a trial, in a line: ``trial a1  paused after epoch 3: AP 0.21, 1.5 GFLOPs; reason``."""
    reason = "".join(f"; {text}" for text in (row.get("reason"), descent(row)) if text)
    if row["status"] in ("failed", "rejected"):
        return f"trial {row['trial']}  {row['status']}: {row.get('reason') or last_line(row.get('error') or '')}"
    figures = ", ".join(f"{label(figure)} {number(view.value(row, figure))}" for figure in view.objectives)
    return f"trial {row['trial']}  {row['status']} after epoch {row['epoch']}: {figures}{reason}"
