"""Pascal-like CSV: a row for each box, with or without a header.

With a header, columns are told by their names, in any case and order: an image, a class, and xmin ymin xmax ymax,
x1 y1 x2 y2, left top width height or the like, or `bbox` with [x, y, width, height]; perhaps a split. Without one the
row is path,x1,y1,x2,y2,class, makesense.ai's class,x,y,width,height,path,…, or AutoML's set,path,class,x1,y1,,,x2,y2,,.
Coordinates are 0-based pixels; a file whose coordinates are all within 0 to 1 needs source.coordinates. A row whose box
is empty marks an image as background. Classes: source.classes, else the class file (name,index), else sorted by name.
"""

from dataclasses import dataclass

from .... import storage
from ....errors import JobError
from ...files.listing import Listing
from ...files.split_names import in_order, split_named
from ...files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ..item import RawSource
from ..objects import Problem
from .boxes import Boxes, Folder, joined
from .delimited import SUFFIXES, first_cells, is_open_images, numbers, plain, read_table, rows
from .records.layout import Order, corners, sides_of
from .splits import by_split

_IMAGE = ("filename", "image", "imageid", "imagename", "imagepath", "imagefile", "file", "filepath", "path", "img")
_CLASS = ("class", "label", "classname", "labelname", "category", "categoryname")
_SIZES = (("height", "width"), ("imageheight", "imagewidth"))
_SPLIT = ("split", "subset", "set", "partition")
_AUTOML = {"train": "train", "training": "train", "validation": "val", "validate": "val", "test": "test",
           "unassigned": "train"}


@dataclass(frozen=True)
class Columns:
    """Where in a row its parts are."""

    image: int
    box: tuple[int, ...]
    """Four numbers, or one column with all four."""
    label: int | None
    size: tuple[int, int] | None = None
    """Height and width of the image."""
    has_header: bool = True
    order: Order = "xyxy"
    split: int | None = None
    relative: bool = False
    """The numbers are always fractions of the image."""


def columns_of(cells: list[str]) -> Columns | None:
    """The columns by the first row; None where it is no table of boxes, or no single reading of one."""
    if len(cells) == 6 and _is_picture(cells[0]):
        return Columns(0, (1, 2, 3, 4), 5, has_header=False) if numbers(cells[1:5]) is not False else None
    if len(cells) == 8 and _is_picture(cells[5]) and numbers(cells[1:5]):
        return Columns(5, (1, 2, 3, 4), 0, (7, 6), has_header=False, order="xywh")
    if len(cells) in (9, 11) and cells[0].lower() in _AUTOML and _is_picture(cells[1]):
        return Columns(1, (3, 4, 7, 8), 2, has_header=False, split=0, relative=True)
    names = [plain(cell) for cell in cells]
    images, labels, splits = ([names.index(name) for name in known if name in names]
                              for known in (_IMAGE, _CLASS, _SPLIT))
    sides = sides_of(tuple(cells), is_record=True)
    boxes = [(tuple(map(cells.index, sides[0])), sides[1])] if sides else []
    boxes += [((names.index("bbox"),), "xywh")] if "bbox" in names else []
    if len(images) != 1 or len(boxes) != 1 or len(labels) > 1 or len(set(names)) < len(names):
        return None
    size = next(((names.index(height), names.index(width)) for height, width in _SIZES if {height, width} <= set(names)
                 and names.index(width) not in boxes[0][0]), None)
    return Columns(images[0], boxes[0][0], labels[0] if labels else None, size, order=boxes[0][1],
                   split=splits[0] if len(splits) == 1 else None)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES)


def evidence(listing: Listing) -> list[str]:
    """Tables of boxes; those of OpenImages are another format."""
    return [path for path in listing.probes(*SUFFIXES)
            if columns_of(cells := first_cells(listing.start(path))) and not is_open_images(cells)]


def read(spec) -> RawSource:
    """Read all tables; JobError names the header of one that has no single reading."""
    folder = Folder(spec.uri)
    listing = Listing(spec.uri)
    found = spec.splits or evidence(listing)
    own = len(found) == 1 and not spec.splits and columns_of(first_cells(listing.start(found[0])))
    splits = spec.splits or by_split(found) if not own or own.split is None else {"": found[0]}
    if not splits:
        heads = [f"{path}: {', '.join(first_cells(listing.start(path)))}" for path in listing.probes(*SUFFIXES)]
        raise JobError("source.uri", f"no table of boxes is at {spec.uri} ({heads[0] if heads else 'no CSV file'})",
                       "name the columns filename, class, xmin, ymin, xmax, ymax")
    texts = {split: read_table(spec.uri, path) for split, path in splits.items()}
    listed, class_files = _class_file(listing)
    names = spec.classes or listed or sorted({
        name for split, (text, _) in texts.items() for name in _labels(text, splits[split], spec)}, key=_natural)
    tables = {split: (path, boxes) for name, path in splits.items()
              for split, boxes in _boxes(name, texts[name][0], path, list(names), spec).items()}
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


def _boxes(split: str, text: str, path: str, names: list[str], spec) -> dict[str, Boxes]:
    """The boxes of a table, which is one split, or without its name has a column of splits."""
    columns, found = _table(text, path, spec)
    relative = columns.relative or spec.coordinates == "fractions"
    of_split: dict[str, Boxes] = {split: Boxes(relative)} if split else {}
    label_of = {name: index for index, name in enumerate(names)}
    needed = max(columns.image, *columns.box, columns.label or 0, columns.split or 0)
    for line, cells in found:
        where = f"{path} line {line}"
        cells += [""] * (needed + 1 - len(cells))
        word = cells[columns.split].lower() if columns.split is not None else ""
        boxes = of_split.setdefault(split or _AUTOML.get(word) or split_named(word) or word or "train", Boxes(relative))
        if not cells[columns.image]:
            boxes.tell("row without an image name", where)
            continue
        image = boxes.image(cells[columns.image], None if relative else _size(cells, columns.size))
        texts = [cells[position] for position in columns.box]
        box = numbers(texts)
        name = names[0] if columns.label is None else cells[columns.label]
        if box is None:
            continue
        if box is False:
            boxes.add_problem(image, Problem("box is no four numbers", where))
        elif name not in label_of:
            boxes.add_problem(image, Problem("unknown class", f"'{name}' in {where}"))
        else:
            if len(texts) == 4 and any("," in text for text in texts):
                boxes.tell("decimal comma read as a point", where)
            boxes.add(image, label_of[name], corners(box, columns.order), False, where)
    for boxes in of_split.values() if not columns.relative else ():
        boxes.check_unit(spec.coordinates, path)
    return {split: of_split[split] for split in in_order(of_split)}


def _size(cells: list[str], size: tuple[int, int] | None) -> tuple[int, int] | None:
    try:
        height, width = (int(float(cells[position])) for position in size or ())
    except (ValueError, IndexError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None
