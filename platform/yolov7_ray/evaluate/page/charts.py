"""Charts as inline SVG that answer to the pointer (`page.js`); colours come from the page's style."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...jobs.page.axis import Axis
from ...jobs.page.figures import number

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 250, 44, 12, 10, 32
NUM_COLOURS = 4
MAX_POINTS = 600
"""Of one line: more are thinned out, the last one stays."""


@dataclass(frozen=True)
class Line:
    """One figure over epochs."""

    name: str
    points: Sequence[tuple[float, float]]


def lines(given: Sequence[Line], label: str, mark: float | None = None) -> str:
    """Lines over epochs with a legend, and a reading of all of them where the pointer is; empty without points.

    At ``mark``, an epoch, the chart is crossed by a dashed line. The colour of a line is that of its place in ``given``.
    """
    colours = [index for index, line in enumerate(given) if line.points]
    given = [Line(line.name, _thinned(line.points)) for line in given if line.points]
    if not given:
        return ""
    across = sorted({x for line in given for x, _ in line.points})
    x, y = Axis.of(across, whole=True), Axis.of([value for line in given for _, value in line.points], zero=True)
    drawn = "".join(_line(index, [(_x(x.place(at)), _y(y.place(value))) for at, value in line.points])
                    for index, line in zip(colours, given))
    crossing = f"<path class=mark d='M{_x(x.place(mark)):.1f} {TOP}V{HEIGHT - BOTTOM}'/>" if mark is not None else ""
    readings = {"unit": "epoch", "x": across, "places": [round(_x(x.place(at)), 1) for at in across], "lines": [
        {"name": line.name, "values": [known.get(at) for at in across]}
        for line in given for known in [{at: number(value) for at, value in line.points}]]}
    names = legend([line.name for line in given], colours)
    return _with_reading(frame(x, y, ("epoch", label), crossing + drawn), names, readings)


def unit_chart(key: str, labels: tuple[str, str], inner: str = "") -> str:
    """An empty chart of shares, both axes from 0 to 1, that the script fills: it finds it by ``key``."""
    unit = Axis(0.0, 1.0)
    return frame(unit, unit, labels, f"<g data-drawn='{key}'>{inner}</g>")


def frame(x: Axis, y: Axis, labels: tuple[str, str], inner: str) -> str:
    """The SVG: axes with their ticks and names, what is drawn in it, and the line that follows the pointer."""
    across = "".join(f"<path class=grid d='M{_x(at):.1f} {TOP}V{HEIGHT - BOTTOM}'/><text x='{_x(at):.1f}' "
                     f"y='{HEIGHT - BOTTOM + 13}' text-anchor=middle>{html.escape(text)}</text>" for at, text in x.ticks())
    up = "".join(f"<path class=grid d='M{LEFT} {_y(at):.1f}H{WIDTH - RIGHT}'/><text x='{LEFT - 5}' y='{_y(at) + 3.5:.1f}' "
                 f"text-anchor=end>{html.escape(text)}</text>" for at, text in y.ticks())
    name = (f"<text class=name x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 4}' text-anchor=middle>"
            f"{html.escape(labels[0])}</text>")
    title = html.escape(f"{labels[1]} against {labels[0]}")
    return (f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img><title>{title}</title>{across}{up}{name}{inner}"
            f"<path class=cursor data-top='{TOP}' data-bottom='{HEIGHT - BOTTOM}' d=''/></svg>")


def legend(names: Sequence[str], colours: Sequence[int] | None = None) -> str:
    """The names with the colours of their lines; by default in order."""
    shown = "".join(f"<span><i class='s{index % NUM_COLOURS}{' thin' * (index >= NUM_COLOURS)}'></i>{html.escape(name)}</span>"
                    for index, name in zip(colours or range(len(names)), names))
    return f"<p class=legend>{shown}</p>"


def place_data() -> dict[str, float]:
    """How the script turns shares into places of a `unit_chart`."""
    return {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}


def embedded(key: str, value: object) -> str:
    """A value for the script, as JSON that cannot end its element."""
    text = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
    return f"<script type='application/json' id='{key}'>{text}</script>"


def rounded(values: np.ndarray) -> list:
    """An array as nested lists for JSON: three digits, None for NaN."""
    return [rounded(row) for row in values] if values.ndim > 1 else [
        None if np.isnan(value) else round(float(value), 3) for value in values]


def _line(index: int, corners: Sequence[tuple[float, float]]) -> str:
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in corners)
    dots = "".join(f"<circle cx='{px:.1f}' cy='{py:.1f}' r=2 />" for px, py in corners) if len(corners) < 16 else ""
    return f"<g class='line l{index % NUM_COLOURS}{' thin' * (index >= NUM_COLOURS)}'><path d='{path}'/>{dots}</g>"


def _with_reading(chart: str, names: str, readings: dict) -> str:
    data = html.escape(json.dumps(readings, separators=(",", ":")), quote=True)
    return f"{names}<div class=reads data-readings=\"{data}\">{chart}<p class='quiet reading'></p></div>"


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    every = -(-len(points) // MAX_POINTS)
    return points[::-every][::-1] if every > 1 else points


def _x(place: float) -> float:
    return LEFT + place * (WIDTH - LEFT - RIGHT)


def _y(place: float) -> float:
    return HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)
