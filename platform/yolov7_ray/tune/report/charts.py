"""Charts of a search as inline SVG; colours come from the page's style, so that they follow light and dark."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...jobs.page.axis import Axis

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 280, 46, 10, 10, 34
PARALLEL_HEIGHT = 300


@dataclass(frozen=True)
class Point:
    """One trial in a chart."""

    trial: str
    x: object
    y: float
    classes: str
    """front, trained or open: how it is drawn."""
    tip: str
    spread: float = 0.0
    """Half the length of its error bar."""


@dataclass(frozen=True)
class Curve:
    """One trial over epochs, or one figure over compute."""

    trial: str
    points: Sequence[tuple[float, float]]
    classes: str
    tip: str
    steps: bool = False
    """Constant up to the next point."""


def scatter(points: Sequence[Point], x: Axis, y: Axis, labels: tuple[str, str], line: Iterable[Point] = ()) -> str:
    """Points with error bars; ``line`` joins those of a front in steps."""
    marks = []
    for point in points:
        px, py = _x(x.place(point.x)), _y(y.place(point.y))
        if point.spread:
            low, high = (_y(y.place(point.y + sign * point.spread)) for sign in (-1, 1))
            marks.append(f"<path class='bar {point.classes}' d='M{px:.1f} {low:.1f}V{high:.1f}"
                         f"M{px - 3:.1f} {low:.1f}h6M{px - 3:.1f} {high:.1f}h6'/>")
        radius = 4.5 if "front" in point.classes else 3.5
        marks.append(f"<circle class='dot {point.classes}' data-trial='{_text(point.trial)}' cx='{px:.1f}' "
                     f"cy='{py:.1f}' r='{radius}'><title>{_text(point.tip)}</title></circle>")
    corners = sorted(((_x(x.place(point.x)), _y(y.place(point.y))) for point in line))
    joined = f"<path class='joined' d='{_steps(corners)}'/>" if len(corners) > 1 else ""
    return _chart(x, y, labels, joined + "".join(marks))


def curves(lines: Sequence[Curve], x: Axis, y: Axis, labels: tuple[str, str],
           marks: Sequence[tuple[float, str]] = ()) -> str:
    """Lines; at ``marks`` (value of x, text) the chart is crossed by a dashed one."""
    parts = [_mark(_x(x.place(at)), text) for at, text in marks]
    for line in lines:
        corners = [(_x(x.place(at)), _y(y.place(value))) for at, value in line.points]
        path = _steps(corners) if line.steps else "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in corners)
        trial = f" data-trial='{_text(line.trial)}'" if line.trial else ""
        parts.append(f"<g class='curve {line.classes}'{trial}><title>{_text(line.tip)}</title><path d='{path}'/>")
        px, py = corners[-1]
        parts.append(f"<circle cx='{px:.1f}' cy='{py:.1f}' r='2.5'/></g>")
    return _chart(x, y, labels, "".join(parts))


def _mark(px: float, text: str) -> str:
    """A dashed line across the chart."""
    return (f"<path class='mark' d='M{px:.1f} {TOP}V{HEIGHT - BOTTOM}'/><text x='{px - 4:.1f}' "
            f"y='{HEIGHT - BOTTOM - 5}' text-anchor='end'>{_text(text)}</text>")


def bars(shares: Sequence[tuple[str, float]]) -> str:
    """Names with a bar each, and its share in percent."""
    rows = "".join(f"<li><b>{_text(name)}</b><i style='width:{60 * share / max(1e-9, shares[0][1]):.1f}%'></i>"
                   f"<span>{share:.0%}</span>" for name, share in shares)
    return f"<ol class=shares>{rows}</ol>"


def parallel(axes: Sequence[tuple[str, Axis]], lines: Sequence[tuple[str, Sequence[object], str, str]]) -> str:
    """A line through parallel axes for each (trial, its values, classes, tip)."""
    gap = max(110, 900 // max(1, len(axes) - 1))
    width, low, high = gap * (len(axes) - 1) + 110, PARALLEL_HEIGHT - 14, 34
    places = [55 + gap * index for index in range(len(axes))]
    parts = []
    for trial, values, classes, tip in lines:
        corners = [(px, low - (low - high) * axis.place(value))
                   for px, (_, axis), value in zip(places, axes, values) if value is not None]
        path = "M" + "L".join(f"{px} {py:.1f}" for px, py in corners)
        parts.append(f"<g class='curve {classes}' data-trial='{_text(trial)}'><title>{_text(tip)}</title>"
                     f"<path d='{path}'/></g>")
    for px, (name, axis) in zip(places, axes):
        parts.append(f"<path class='axis' d='M{px} {high}V{low}'/><text class='name' x='{px}' y='16' "
                     f"text-anchor='middle'>{_text(_cut(name))}</text>")
        parts += [f"<text class='on' x='{px + 5}' y='{low - (low - high) * at + 3.5:.1f}'>{_text(_cut(text))}</text>"
                  for at, text in axis.ticks()]
    return (f"<svg class='parallel' viewBox='0 0 {width} {PARALLEL_HEIGHT}' style='min-width:{width * 0.72:.0f}px' "
            f"role='img'>{''.join(parts)}</svg>")


def _chart(x: Axis, y: Axis, labels: tuple[str, str], inner: str) -> str:
    across = "".join(f"<path class='grid' d='M{_x(at):.1f} {TOP}V{HEIGHT - BOTTOM}'/><text x='{_x(at):.1f}' "
                     f"y='{HEIGHT - BOTTOM + 13}' text-anchor='middle'>{_text(_cut(text))}</text>"
                     for at, text in x.ticks())
    up = "".join(f"<path class='grid' d='M{LEFT} {_y(at):.1f}H{WIDTH - RIGHT}'/><text x='{LEFT - 5}' "
                 f"y='{_y(at) + 3.5:.1f}' text-anchor='end'>{_text(_cut(text))}</text>" for at, text in y.ticks())
    names = (f"<text class='name' x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 5}' text-anchor='middle'>"
             f"{_text(labels[0])}</text><text class='name' transform='translate(10 {(TOP + HEIGHT - BOTTOM) / 2}) "
             f"rotate(-90)' text-anchor='middle'>{_text(labels[1])}</text>")
    title = f"<title>{_text(labels[1])} against {_text(labels[0])}</title>"
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>{title}{across}{up}{names}{inner}</svg>"


def _x(place: float) -> float:
    return LEFT + place * (WIDTH - LEFT - RIGHT)


def _y(place: float) -> float:
    return HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)


def _steps(corners: Sequence[tuple[float, float]]) -> str:
    """A path that keeps its height up to the next corner."""
    (px, py), rest = corners[0], corners[1:]
    return f"M{px:.1f} {py:.1f}" + "".join(f"H{px:.1f}V{py:.1f}" for px, py in rest)


def _cut(text: str) -> str:
    return text if len(text) <= 16 else text[:15] + "…"


def _text(text: str) -> str:
    return html.escape(text)
