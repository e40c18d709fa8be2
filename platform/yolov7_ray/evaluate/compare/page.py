"""The page of a comparison: one HTML file that works from disk."""

import html
from collections.abc import Sequence
from typing import Any

from ...jobs.page.document import Tile, document
from ..page.charts import Line, lines
from ..page.style import SCRIPT, STYLE
from ..summary import text
from .comparison import alike, by_class, costs, difference, of_jobs, of_which_epochs, shares, signed, warnings
from .run import Run

COMPARED = STYLE + """
.better { color: var(--s2); } .worse { color: var(--error); } .figures td { white-space: nowrap; }
.warned { border-left: 4px solid var(--kind); overflow-wrap: anywhere; }
.compared td { overflow-wrap: anywhere; min-width: 6rem; } .compared td:first-child { white-space: nowrap; min-width: 0; }
"""
CURVES = (("AP", "of the moving average's weights", "ap", "AP"), ("AP50", "at IoU 0.5", "ap50", "AP50"),
          ("Box loss", "of the training batches, augmented", "train/box", "loss"),
          ("Objectness loss", "of the training batches, augmented", "train/objectness", "loss"),
          ("Classification loss", "of the training batches, augmented", "train/classification", "loss"),
          ("Learning rate", "at the end of the epoch", "learning_rate", "learning rate"),
          ("Speed", "of training, without evaluation", "images_per_s", "images/s"))
"""Title, remark, figure of an epoch, and what the axis is called."""


def comparison_page(runs: Sequence[Run]) -> str:
    """The HTML document."""
    names = " · ".join(f"{run.letter} {run.name}" for run in runs)
    tiles: list[Tile] = [
        (text(run.figures.get("ap")), f"AP of {run.letter}",
         f"{run.name}, AP50 {text(run.figures.get('ap50'))}" + (f", epoch {run.best['epoch']}" if run.rows else ""))
        for run in runs]
    warned = "".join(f"<p class='card warned warning'>{html.escape(line)}</p>" for line in warnings(runs))
    parts = [("warnings", "Warnings", warned), ("figures", "Figures", _figures(runs)), ("curves", "Curves", curves(runs)),
             ("classes", "Classes", _classes(runs)), ("jobs", "Jobs", _jobs(runs))]
    heading = " against ".join(run.name for run in runs) if len(runs) == 2 else f"{len(runs)} runs"
    return document(f"Comparison · {heading}", heading, names, tiles, parts, style=COMPARED, script=SCRIPT)


def curves(runs: Sequence[Run]) -> str:
    """A chart for each figure with a line for each run that has it by epoch; empty if there is none."""
    drawn = []
    for title, remark, key, label in CURVES:
        chart = lines([Line(f"{run.letter} {run.name}", [
            (row["epoch"], row[key]) for row in run.rows if row.get(key) is not None]) for run in runs], label)
        if chart:
            drawn.append(f"<figure class=card><h3>{title}</h3><p class=quiet>{remark}</p>{chart}</figure>")
    return f"<div class=charts>{''.join(drawn)}</div>" if drawn else ""


def _figures(runs: Sequence[Run]) -> str:
    about = "".join(f"<tr><td>{run.letter}<td>{html.escape(run.uri)}<td>{html.escape(run.described())}" for run in runs)
    figures = [(name, [text(first), *(_figure(value, first) for value in others)]) for name, (first, *others) in shares(runs)]
    rows = "".join(f"<tr><td>{name}" + "".join(f"<td class=number>{value}" for value in values)
                   for name, values in [*figures, *costs(runs)])
    head = "".join(f"<th class=number>{run.letter}" for run in runs)
    return (f"<div class='card wide'><table class='plain compared'><tr><th>run<th>where<th>what{about}</table></div>"
            f"<div class='card wide'><p class=quiet>Of the best epoch, with the difference to {runs[0].letter}; images/s: median of "
            f"the epochs</p><table class='plain figures'><tr><th>{head}{rows}</table></div>")


def _classes(runs: Sequence[Run]) -> str:
    """A row for each class, those that differ most first; a click on a head sorts."""
    first = runs[0].letter
    heads = ["class", "objects", *(f"AP {run.letter}" for run in runs), *(f"{run.letter} − {first}" for run in runs[1:])]
    head = "".join(f"<th{' class=number' * bool(place)}><button type=button>{name}</button>"
                   for place, name in enumerate(heads))
    rows = "".join(
        f"<tr><td>{html.escape(one.name)}<td class=number data-value={one.objects}>{one.objects:,}"
        + "".join(f"<td class=number data-value='{_known(value)}'>{text(value)}" for value in one.ap)
        + "".join(f"<td class=number data-value='{_known(value)}'>{_coloured(value)}" for value in one.differences[1:])
        for one in by_class(runs))
    return (f"<div class='card wide'><p class=quiet>AP {of_which_epochs(runs)}</p><table class='plain classes'><thead><tr>{head}"
            f"<tbody>{rows}</table></div>") if rows else ""


def _jobs(runs: Sequence[Run]) -> str:
    head = "".join(f"<th>{run.letter}" for run in runs)
    rows = "".join(f"<tr><td>{html.escape(key)}" + "".join(f"<td>{_text(value)}" for value in values)
                   for key, values in of_jobs(runs))
    if not rows:
        return f"<div class=card><p class=quiet>{alike(runs)}</p></div>"
    return f"<div class='card wide'><table class='plain compared'><tr><th>what differs{head}{rows}</table></div>"


def _figure(value: float | None, first: float | None) -> str:
    change = difference(value, first)
    return text(value) if change is None else f"{text(value)} {_coloured(change)}"


def _coloured(change: float | None) -> str:
    if change is None:
        return "–"
    kind = {"+0.000": "same"}.get(said := signed(change), "better" if change > 0 else "worse")
    return f"<span class={kind}>{said}</span>"


def _known(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _text(value: Any) -> str:
    return "–" if value is None else html.escape(str(value))
