"""A comparison of runs as text and as a page."""

from collections.abc import Sequence

from ... import storage
from ...jobs.execution import shown
from ..summary import MAX_CLASSES, MAX_NAME, table, text
from .comparison import alike, by_class, costs, difference, of_jobs, of_which_epochs, read_all, shares, signed, warnings
from .run import Run

PAGE = "comparison.html"
MAX_VALUE = 28
"""Characters of a job's value in a table."""


def compare(uris: Sequence[str], output: str | None = None) -> list[str]:
    """Lines that compare the runs; the page goes to ``<output>/comparison.html``.

    JobError if one cannot be compared.
    """
    runs = read_all(uris)
    lines = comparison_table(runs)
    if output is not None:
        from .page import comparison_page

        place = storage.join(storage.absolute(output), PAGE)
        storage.write_bytes(place, comparison_page(runs).encode())
        lines.append(f"page: {shown(place)}")
    return lines


def comparison_table(runs: Sequence[Run]) -> list[str]:
    """Runs, warnings, figures with differences to the first run, classes and keys of the jobs that differ."""
    letters = [run.letter for run in runs]
    lines = [f"{run.letter}  {run.uri}: {run.described()}" for run in runs]
    lines += [f"warning: {line}" for line in warnings(runs)]
    lines += table(("", *letters), [(name, *_to_first(values)) for name, values in shares(runs)] + [
        (name, *values) for name, values in costs(runs)])
    classes = by_class(runs)
    if classes:
        lines += [f"AP by class, {of_which_epochs(runs)}", *table(("class", "objects", *letters), [
            (_cut(one.name, MAX_NAME), one.objects, *_to_first(one.ap)) for one in classes[:MAX_CLASSES]])]
    if len(classes) > MAX_CLASSES:
        lines.append(f"  and {len(classes) - MAX_CLASSES} classes that differ less")
    keys = [(key, *("–" if value is None else _cut(str(value), MAX_VALUE) for value in values))
            for key, values in of_jobs(runs)]
    return [*lines, *(["what differs of the jobs", *table(("key", *letters), keys)] if keys else [alike(runs)])]


def _to_first(values: Sequence[float | None]) -> list[str]:
    """Each figure, with its difference to the first."""
    first, *others = values
    changes = [difference(value, first) for value in others]
    return [text(first), *(text(value) if change is None else f"{text(value)} {signed(change)}"
                           for value, change in zip(others, changes))]


def _cut(value: str, most: int) -> str:
    return value if len(value) <= most else value[:most - 1] + "…"
