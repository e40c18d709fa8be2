"""A page: one HTML file that asks for nothing outside itself."""

import html
from collections.abc import Sequence
from pathlib import Path

from .style import STYLE

SORTED_TABLES = Path(__file__).with_name("sorted_tables.js").read_text()
"""Script: a click on a button in a column's head sorts the table by it, by `data-value` where a cell has one."""

Tile = tuple[str, str, str]
"""A figure, its unit, and a remark."""
Part = tuple[str, str, str]
"""Anchor, title and HTML of a part; without content it is left out."""


def document(title: str, heading: str, facts: str, tiles: Sequence[Tile], parts: Sequence[Part], *, style: str = "",
             navigation: str = "", script: str = "") -> str:
    """The HTML. ``heading`` and ``facts`` are text; ``navigation`` follows the links to the parts; ``style`` is that
    of this kind of page alone."""
    shown = [part for part in parts if part[2]]
    links = "".join(f"<a href='#{key}'>{name}</a>" for key, name, _ in shown)
    body = "".join(f"<h2 id={key}>{name}</h2>{content}" for key, name, content in shown)
    code = f"<script>{script}</script>" if script else ""
    return (f"<!doctype html><html lang=en><head><meta charset=utf-8>"
            f"<meta name=viewport content='width=device-width, initial-scale=1'><title>{html.escape(title)}</title>"
            f"<link rel=icon href='data:,'><style>{STYLE}{style}</style></head><body>"
            f"<header><h1>{html.escape(heading)}</h1><p class=quiet>{html.escape(facts)}</p>{_tiles(tiles)}"
            f"<nav>{links}{navigation}</nav></header>{body}{code}</body></html>\n")


def _tiles(tiles: Sequence[Tile]) -> str:
    return "<div class=tiles>" + "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(unit)}</span><small>{html.escape(detail)}</small></div>"
        for value, unit, detail in tiles) + "</div>"
