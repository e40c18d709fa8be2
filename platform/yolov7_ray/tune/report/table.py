"""The table of trials on a search's page."""

import html
from typing import Any

from ..scheduler import last_line
from .view import SearchView, descent, label, number, short_names


def trials_table(view: SearchView) -> str:
    """HTML: a row for each trial, the best first; a click on a column's head sorts by it."""
    names, front = short_names(list(view.spec.search)), {row["trial"] for row in view.front}
    extra = [figure for figure in ("ap", "ap50", "gflops", "parameters", "latency_ms") if figure not in view.objectives
             and any(view.value(row, figure) is not None for row in view.rows)]
    figures = [*view.objectives, *extra]
    numeric = {name for path, name in names.items() if all(isinstance(row["values"].get(path), int | float)
                                                           for row in view.rows)}
    heads = [("", ""), ("trial", ""), ("status", ""), ("epochs", "number"),
             *((label(figure), "number") for figure in figures),
             *((name, "number" if name in numeric else "") for name in names.values()), ("why", "")]
    rows = []
    for row in view.ranked:
        why = row.get("reason") or (last_line(row["error"]) if row.get("error") else descent(row))
        run = row["run"].removeprefix(view.run).lstrip("/")
        trial = html.escape(row["trial"])
        report = f"<a href='../{html.escape(run)}/report/index.html'>{trial}</a>" if row["epoch"] else trial
        cells = [f"<td data-value='{int(row['trial'] in front)}'>{'●' if row['trial'] in front else ''}",
                 f"<td data-value='{trial}'>{report}", f"<td class='{row['status']}'>{row['status']}",
                 _cell(str(row["epoch"]), row["epoch"]),
                 *(_cell(number(value), value) for value in (view.value(row, figure) for figure in figures)),
                 *(_cell(number(value), value) for value in (row["values"].get(path) for path in names)),
                 f"<td class=why>{html.escape(why)}"]
        rows.append(f"<tr data-trial='{trial}'>{''.join(cells)}")
    head = "".join(f"<th class='{kind}'><button type=button>{html.escape(text) or '●'}</button>"
                   for text, kind in heads)
    return f"<table class='plain trials'><thead><tr>{head}<tbody>{''.join(rows)}</table>"


def _cell(text: str, value: Any) -> str:
    """A cell that sorts by its value."""
    key = "" if value is None else html.escape(str(value))
    return f"<td data-value='{key}'{'' if isinstance(value, str) else ' class=number'}>{html.escape(text)}"
