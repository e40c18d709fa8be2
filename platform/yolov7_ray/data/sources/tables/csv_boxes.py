"""Pascal-like CSV: a row for each box, with or without a header.

With a header, columns are told by their names, in any case and order: an image, a class, and xmin ymin xmax ymax,
or x1 y1 x2 y2, or `bbox` with [x, y, width, height]. Without one the row is path,x1,y1,x2,y2,class. Coordinates are
0-based pixels; a file whose coordinates are all within 0 to 1 needs source.coordinates. A row whose box is empty
marks an image as background. Classes: source.classes, else the class file (name,index), else sorted by name.
"""

from dataclasses import dataclass

from .... import storage
from ....errors import JobError
from ...files.listing import Listing
from ...files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ..item import RawSource
from ..objects import Problem
from .boxes import Boxes, Folder, joined
from .delimited import SUFFIXES, corners, first_cells, is_open_images, plain, read_table, rows
from .splits import by_split

_IMAGE = ("filename", "image", "imageid", "imagename", "imagepath", "imagefile", "file", "filepath", "path", "img")
_CLASS = ("class", "label", "classname", "labelname", "category", "categoryname")
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))


@dataclass(frozen=True)
class Columns:
    """Where in a row its parts are."""

    image: int
    box: tuple[int, ...]
    """Four corners, or one column with [x, y, width, height]."""
    label: int | None
    size: tuple[int, int] | None = None
    """Height and width of the image."""
    has_header: bool = True


def columns_of(cells: list[str]) -> Columns | None:
    """The columns by the first row; None where it is no table of boxes, or no single reading of one."""
    if len(cells) == 6 and cells[0].lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES):
        return Columns(0, (1, 2, 3, 4), 5, has_header=False) if corners(cells[1:5]) is not False else None
    names = [plain(cell) for cell in cells]
    images, labels = ([names.index(name) for name in known if name in names] for known in (_IMAGE, _CLASS))
    boxes = [tuple(map(names.index, corners)) for corners in _CORNERS if set(corners) <= set(names)]
    boxes += [(names.index("bbox"),)] if "bbox" in names else []
    if len(images) != 1 or len(boxes) != 1 or len(labels) > 1 or len(set(names)) < len(names):
        return None
    size = (names.index("height"), names.index("width")) if {"height", "width"} <= set(names) else None
    return Columns(images[0], boxes[0], labels[0] if labels else None, size)


def evidence(listing: Listing) -> list[str]:
    """Tables of boxes; those of OpenImages are another format."""
    return [path for path in listing.probes(*SUFFIXES)
            if columns_of(cells := first_cells(listing.start(path))) and not is_open_images(cells)]


def read(spec) -> RawSource:
    """Read all tables; JobError names the header of one that has no single reading."""
    folder = Folder(spec.uri)
    listing = Listing(spec.uri)
    splits = spec.splits or by_split(evidence(listing))
    if not splits:
        heads = [f"{path}: {', '.join(first_cells(listing.start(path)))}" for path in listing.probes(*SUFFIXES)]
        raise JobError("source.uri", f"no table of boxes is at {spec.uri} ({heads[0] if heads else 'no CSV file'})",
                       "name the columns filename, class, xmin, ymin, xmax, ymax")
    texts = {split: read_table(spec.uri, path) for split, path in splits.items()}
    listed, class_files = _class_file(listing)
    names = spec.classes or listed or sorted({
        name for split, (text, _) in texts.items() for name in _labels(text, splits[split], spec)}, key=_natural)
    tables = {split: (splits[split], _boxes(text, splits[split], list(names), spec)) for split, (text, _) in texts.items()}
    return joined(folder, names, tables, [*(digest for _, digest in texts.values()), *class_files])


def _natural(name: str) -> tuple:
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def _class_file(listing: Listing) -> tuple[list[str], list[str]]:
    """Names of RetinaNet's class file, rows name,index that count from 0, and its digest; empty without one."""
    for path in listing.probes(*SUFFIXES):
        entries = [cells for _, cells in rows(listing.start(path))]
        if entries and all(len(cells) == 2 and cells[1].isdecimal() for cells in entries):
            indices = {int(index): name for name, index in entries}
            if sorted(indices) == list(range(len(entries))):
                names = [indices[index] for index in range(len(entries))]
                return names, [storage.digest("\n".join(names).encode())[:16]]
    return [], []


def _table(text: str, path: str, spec):
    """The columns and the rows below the header."""
    cells = first_cells(text)
    columns = columns_of(cells)
    if columns is None:
        raise JobError(path, f"its header has no single reading: {', '.join(cells)}",
                       "name the columns filename, class, xmin, ymin, xmax, ymax")
    if columns.label is None and len(spec.classes or ()) != 1:
        raise JobError(path, f"its header names no class: {', '.join(cells)}", "set source.classes to the one class")
    found = rows(text)
    if columns.has_header:
        next(found)
    return columns, found


def _labels(text: str, path: str, spec) -> set[str]:
    columns, found = _table(text, path, spec)
    return {cells[columns.label] for _, cells in found if len(cells) > columns.label} - {""}


def _boxes(text: str, path: str, names: list[str], spec) -> Boxes:
    columns, found = _table(text, path, spec)
    boxes = Boxes(relative=spec.coordinates == "fractions")
    label_of = {name: index for index, name in enumerate(names)}
    needed = max(columns.image, *columns.box, columns.label or 0)
    for line, cells in found:
        where = f"{path} line {line}"
        cells += [""] * (needed + 1 - len(cells))
        if not cells[columns.image]:
            boxes.tell("row without an image name", where)
            continue
        image = boxes.image(cells[columns.image], None if boxes.relative else _size(cells, columns.size))
        box = corners([cells[position] for position in columns.box])
        name = names[0] if columns.label is None else cells[columns.label]
        if box is None:
            continue
        if box is False:
            boxes.add_problem(image, Problem("box is no four numbers", where))
        elif name not in label_of:
            boxes.add_problem(image, Problem("unknown class", f"'{name}' in {where}"))
        else:
            boxes.add(image, label_of[name], box, False, where)
    boxes.check_unit(spec.coordinates, path)
    return boxes


def _size(cells: list[str], size: tuple[int, int] | None) -> tuple[int, int] | None:
    try:
        height, width = (int(float(cells[position])) for position in size or ())
    except (ValueError, IndexError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None
