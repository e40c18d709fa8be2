"""Delimited text: rows with their line numbers, and what the columns are called."""

import csv
import io
import json
import math
import re
from collections.abc import Iterator

from .... import storage
from ...files.text import decode, read_bytes

SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t"
OPEN_IMAGES = ("imageid", "labelname", "xmin", "ymin", "xmax", "ymax")
"""Columns of OpenImages' boxes, beside IsGroupOf or Confidence."""
csv.field_size_limit(1 << 30)  # else 131,072 characters, which the objects or brush strokes of one image may exceed
_EMPTY = ("", "nan", "[]")


def read_table(uri: str, path: str) -> tuple[str, str]:
    """The text of a table, and its digest."""
    data = read_bytes(storage.join(uri, path))
    return decode(data, path), storage.digest(data)[:16]


def delimiter_of(text: str) -> str:
    """The delimiter that occurs most in the first line outside quotes; a comma where there is none."""
    line = re.sub(r'"[^"]*"', "", next((line for line in text.splitlines() if line.strip()), ""))
    return max(DELIMITERS, key=line.count)


def rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of every row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield reader.line_num, cells


def plain(name: str) -> str:
    """A column's name in small letters and digits: `x_min`, `XMin` and `xmin` are one."""
    return re.sub(r"[\W_]", "", name.casefold())


def first_cells(text: str) -> list[str]:
    """Cells of the first row of the beginning of a file; none where it is no delimited text."""
    try:
        return next(rows(text), (0, []))[1]
    except csv.Error:
        return []


def is_open_images(cells: list[str]) -> bool:
    """Whether this is the header of a table of boxes of OpenImages."""
    names = set(map(plain, cells))
    return set(OPEN_IMAGES) <= names and bool({"isgroupof", "confidence"} & names)


def numbers(cells: list[str]) -> tuple[float, ...] | None | bool:
    """The four numbers of a box, which may have decimal commas; None if the cells are empty, False if they are none."""
    if all(cell.lower() in _EMPTY for cell in cells):
        return None
    try:
        values = json.loads(cells[0]) if len(cells) == 1 else [float(cell.replace(",", ".")) for cell in cells]
        first, second, third, fourth = (float(value) for value in values)
    except (ValueError, TypeError):
        return False
    return all(map(math.isfinite, (first, second, third, fourth))) and (first, second, third, fourth)
