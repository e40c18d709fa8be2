"""Records of images in JSON, JSON Lines or CSV, joined with the images of a folder, whose directories name the splits.

A record names its image, below its own file's directory, and holds the objects; several records of an image add up.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from .... import storage
from ....errors import JobError
from ...files.resolver import plain_parts
from ...files.text import decode, read_bytes
from ..annotation_tools.splits import split_of
from ..item import UNDECODABLE, RawSource
from ..objects import Problem
from .boxes import Boxes, Folder, joined
from .delimited import plain, rows
from .records.json_records import Records, add, declared_hw
from .records.layout import OBJECTS, Asked

NAMES = ("filename", "imagename", "imagefile", "imagepath", "image", "file", "filepath", "path", "img", "imageid", "name")
"""Keys of an image's name, likeliest first."""
_FILE_NAME = re.compile(r'"(?:file_?name|image)"\s*:\s*("(?:[^"\\]|\\.)*")')


def read_images(spec, paths: list[str], asked: Asked) -> RawSource:
    """The images of a folder with the objects of the records in these files, relative to the source's uri."""
    folder, records = Folder(spec.uri), Records(spec, asked)
    tables: dict[str, Boxes] = {}
    digests: dict[str, str] = {}
    for path in paths:
        data = read_bytes(storage.join(spec.uri, path))
        digests[path] = storage.digest(data)[:16]
        for where, name, record in _rows(decode(data, path), path):
            image = _image(folder, path, name)
            split = split_of([posixpath.normpath(image), path], "", spec.splits)
            if split is None:
                continue
            boxes = tables.setdefault(split, Boxes(spec.coordinates == "fractions"))
            entries = None if isinstance(record, Problem) else records.objects(record, where)
            if entries is None:
                problem = record if isinstance(record, Problem) else Problem("row without objects", where, True)
                boxes.lost.append((image, problem))
            else:
                add(boxes, boxes.image(image, declared_hw(record)), entries, where)
    names, target = records.labels.resolved(spec.classes, (), spec.uri)
    for boxes in tables.values():
        boxes.relabel(target, list(records.labels.values))
        boxes.check_unit(spec.coordinates, paths[0])
    if missing := next((split for split in spec.splits or () if split not in tables), None):
        raise JobError(f"source.splits.{missing}", f"no row is of {spec.splits[missing]}", "check source.splits")
    where = paths[0] if len(paths) == 1 else ""
    return joined(folder, names, {split: (where, boxes) for split, boxes in tables.items()}, list(digests.values()))


def _image(folder: Folder, path: str, name: str) -> str:
    """The name below the directory of the metadata, where it is not absolute or a file of the folder as it stands."""
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    return name if beside not in folder.images and (name in folder.images or plain_parts(name)[1]) else beside


def _rows(text: str, path: str) -> Iterator[tuple[str, str, Any]]:
    """Where each row stands, the name of its image, and the row or its problem."""
    for where, row in _records(text, path):
        try:
            row = json.loads(row) if isinstance(row, str) else row | {
                name: json.loads(row[name] or "null") for name in row if name in OBJECTS and isinstance(row[name], str)}
        except (ValueError, RecursionError) as error:
            name = _FILE_NAME.search(row) if isinstance(row, str) else None
            name = json.loads(name[1], strict=False) if name else name_in(row)
            yield where, name, Problem(UNDECODABLE, f"{where}: {error}", is_image=True)
            continue
        name = name_in(row)
        yield where, name, row if name else Problem("row without an image name", where, is_image=True)


def _records(text: str, path: str) -> Iterator[tuple[str, Any]]:
    """Where each record stands, and the record: a mapping, or its JSON."""
    if path.lower().endswith(".csv"):
        table = rows(text)
        _, header = next(table, (0, []))
        yield from ((f"{path} line {line}", dict(zip(header, cells))) for line, cells in table)
    elif path.lower().endswith(".json"):
        try:
            document = json.loads(text)
        except ValueError as error:
            raise JobError(path, f"is not JSON ({error})", "write the file again") from None
        entries = document if isinstance(document, list) else [document]
        yield from ((f"{path} entry {number}", entry) for number, entry in enumerate(entries, 1) if isinstance(entry, dict))
    else:
        yield from ((f"{path} line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def name_in(record: Any) -> str:
    """The name of the image of a record, empty if it has none."""
    if not isinstance(record, dict):
        return ""
    names = {plain(key): value for key, value in record.items() if isinstance(value, str) and value}
    return next((names[key] for key in NAMES if key in names), "")
