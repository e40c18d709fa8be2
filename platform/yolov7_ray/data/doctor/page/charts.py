"""Charts as inline SVG; colours come from the page's style, so that they follow light and dark."""

import html
import math
from collections.abc import Sequence

import numpy as np

LEVELS = 14
"""Shades of a heat map."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 230, 38, 24, 8
SQUARE = 292
"""Side of a heat map."""

Tick = tuple[float, str]
"""Position in cells or bars, and text."""


def heat_map(cells: np.ndarray, x_ticks: Sequence[Tick], y_ticks: Sequence[Tick], title: str) -> str:
    """A square map of counts (rows from the top, columns), shaded by their square root."""
    rows, columns = cells.shape
    most = max(int(cells.max(initial=0)), 1)
    levels = np.ceil(np.sqrt(cells / most) * LEVELS).astype(int)
    scale_x, scale_y = SQUARE / max(columns, 1), SQUARE / max(rows, 1)
    shades = "".join(
        f"<path fill-opacity='{level / LEVELS:.2f}' d='" + "".join(
            f"M{column} {row}h1v1h-1z" for row, column in np.argwhere(levels == level).tolist()) + "'/>"
        for level in range(1, LEVELS + 1) if (levels == level).any())
    x_axis = "".join(_text(LEFT + position * scale_x, TOP + SQUARE + 16, text, "middle") for position, text in x_ticks)
    y_axis = "".join(_text(LEFT - 6, TOP + position * scale_y + 4, text, "end") for position, text in y_ticks)
    lines = "".join(f"<path class=grid d='M{LEFT + position * scale_x:.1f} {TOP}v{SQUARE}'/>" for position, _ in x_ticks)
    lines += "".join(f"<path class=grid d='M{LEFT} {TOP + position * scale_y:.1f}h{SQUARE}'/>" for position, _ in y_ticks)
    return (f"<svg viewBox='0 0 {WIDTH} {TOP + SQUARE + BOTTOM}' role=img><title>{html.escape(title)}</title>{lines}"
            f"<g class=heat transform='translate({LEFT} {TOP}) scale({scale_x:.4f} {scale_y:.4f})'>{shades}</g>"
            f"<rect class=frame x={LEFT} y={TOP} width={SQUARE} height={SQUARE} />{x_axis}{y_axis}</svg>")


def histogram(counts: Sequence[int], names: Sequence[str], ticks: Sequence[Tick], title: str) -> str:
    """Bars with the name and count of each as its tooltip; the axis is labelled at `ticks`."""
    most, inner = max([*counts, 1]), HEIGHT - TOP - BOTTOM
    step = (WIDTH - LEFT - 6) / max(len(counts), 1)
    bars = "".join(
        f"<rect x={LEFT + number * step + step * .08:.2f} y={TOP + inner * (1 - count / most):.2f} "
        f"width={step * .84:.2f} height={inner * count / most:.2f} rx=1.5><title>{html.escape(name)}: {count:,}"
        f"</title></rect>" for number, (count, name) in enumerate(zip(counts, names, strict=True)) if count)
    grid = "".join(
        f"<path class=grid d='M{LEFT} {y:.1f}H{WIDTH - 6}'/>{_text(LEFT - 6, y + 4, short(value), 'end')}"
        for value in _round_ticks(most) for y in [TOP + inner * (1 - value / most)])
    axis = "".join(_text(LEFT + position * step, HEIGHT - 6, text, "middle") for position, text in ticks)
    return (f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img><title>{html.escape(title)}</title>{grid}"
            f"<g class=bars>{bars}</g>{axis}</svg>")


def matrix(counts: np.ndarray, names: Sequence[str], title: str) -> str:
    """Co-occurrence: the share of the images with the row's class that hold the column's class, too."""
    side, number = min(34, max(20, 620 / max(len(names), 1))), len(names)
    labels = [name if len(name) <= 16 else name[:15] + "…" for name in names]
    margin = 14 + 6.3 * max(map(len, labels))
    cells = []
    for row, column in np.ndindex(number, number):
        alone, both = int(counts[row, row]), int(counts[row, column])
        share = both / alone if alone and row != column else 0.0
        x, y = margin + column * side, margin + row * side
        if row == column:
            cells.append(f"<rect class=self x={x:.1f} y={y:.1f} width={side:.1f} height={side:.1f} />")
        elif both:
            tip = f"{both:,} of {alone:,} images with {names[row]} hold {names[column]}"
            cells.append(f"<rect x={x:.1f} y={y:.1f} width={side:.1f} height={side:.1f} fill-opacity={share:.2f}>"
                         f"<title>{html.escape(tip)}</title></rect>")
            if side >= 24 and share >= .005:
                cells.append(f"<text class={'in' if share > .55 else 'on'} x={x + side / 2:.1f} y={y + side / 2 + 4:.1f} "
                             f"text-anchor=middle>{share * 100:.0f}</text>")
    down = "".join(_text(margin - 6, margin + (i + .5) * side + 4, name, "end") for i, name in enumerate(labels))
    across = "".join(
        f"<text transform='translate({margin + (i + .5) * side + 4:.1f} {margin - 6:.1f}) rotate(-90)'>"
        f"{html.escape(name)}</text>" for i, name in enumerate(labels))
    whole = margin + number * side + 2
    return (f"<svg class=matrix viewBox='0 0 {whole:.0f} {whole:.0f}' width={whole:.0f} role=img>"
            f"<title>{html.escape(title)}</title><g class=heat>{''.join(cells)}</g>"
            f"<rect class=frame x={margin:.1f} y={margin:.1f} width={number * side:.1f} height={number * side:.1f} />"
            f"{down}{across}</svg>")


def binned(counts: dict[int, int], max_bars: int = 28) -> tuple[list[int], list[str], list[Tick]]:
    """Bars, names and ticks of a histogram over whole numbers from 0, in bins of one width."""
    last = max(counts, default=0)
    width = _round_up(last / max_bars) if last >= max_bars else 1
    bars = [0] * (last // width + 1)
    for value, count in counts.items():
        bars[value // width] += count
    names = [f"{first * width}" if width == 1 else f"{first * width} to {first * width + width - 1}"
             for first in range(len(bars))]
    every = max(1, -(-len(bars) // 7))
    return bars, names, [(number + .5, f"{number * width}") for number in range(0, len(bars), every)]


def short(value: float) -> str:
    """A count in at most four characters or so: 950, 12k, 3.4M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:g}"


def _round_ticks(most: int) -> list[int]:
    step = max(1, _round_up(most / 4))
    return list(range(0, most + 1, step))


def _round_up(value: float) -> int:
    """The next of 1, 2, 5, 10, 20, …"""
    power = 10 ** math.floor(math.log10(max(value, 1)))
    return next(int(step * power) for step in (1, 2, 5, 10) if step * power >= value)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x={x:.1f} y={y:.1f} text-anchor={anchor}>{html.escape(text)}</text>"
