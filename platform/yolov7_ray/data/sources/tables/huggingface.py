"""Hugging Face: images beside metadata.jsonl or metadata.csv, or Parquet as the `datasets` library writes it.

A row of metadata has `file_name`, below the metadata's own directory, and `objects` with boxes [x, y, width, height],
unless source.box says otherwise, and categories. In a CSV `objects` is JSON. Directories name the splits.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from .... import storage
from ....errors import JobError
from ...files.listing import Listing
from ...files.resolver import plain_parts
from ...files.text import decode, read_bytes
from ..annotation_tools.splits import split_of
from ..item import UNDECODABLE, RawSource
from ..objects import Problem
from . import parquet
from .boxes import Boxes, Folder, joined
from .delimited import first_cells, rows
from .records.json_records import Records, add, declared_hw, tells
from .records.layout import OBJECTS, Asked

METADATA = ("metadata.jsonl", "metadata.csv")
_FILE_NAME = re.compile(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def evidence(listing: Listing) -> list[str]:
    """Metadata with objects, or Parquet files of the library with boxes."""
    return [path for path in _metadata(listing) if _has_objects(listing, path)] + [
        path for path, schema in parquet.schemas(listing) if parquet.is_hugging_face(schema) and parquet.has_boxes(schema)]


def _metadata(listing: Listing) -> list[str]:
    return [path for path in listing.files if path.rpartition("/")[2] in METADATA]


def _has_objects(listing: Listing, path: str) -> bool:
    text = listing.start(path)
    if path.endswith(".csv"):
        cells = first_cells(text)
        return "file_name" in cells and bool(set(OBJECTS) & set(cells))
    for line in text.splitlines()[:20]:
        try:
            if tells(json.loads(line)):
                return _FILE_NAME.search(line) is not None
        except ValueError:
            continue
    return False


def read(spec) -> RawSource:
    """Read all metadata, or all Parquet files; JobError where there are both, or neither."""
    listing = Listing(spec.uri)
    metadata = _metadata(listing)
    files = [path for path in listing.files if path.lower().endswith(parquet.SUFFIXES)]
    asked = Asked.by(spec, default="xywh")
    if metadata and files:
        raise JobError("source.uri", f"{spec.uri} may be read by {metadata[0]} or {files[0]}",
                       "give a folder that holds one of them")
    if files:
        return parquet.read_files(spec, listing, files, asked)
    if not metadata:
        raise JobError("source.uri", f"neither metadata.jsonl, metadata.csv nor a Parquet file is at {spec.uri}",
                       "give the root of the data set")
    return _read_folder(spec, metadata, asked)


def _read_folder(spec, metadata: list[str], asked: Asked) -> RawSource:
    """The images of a folder with the objects of their rows."""
    folder, records = Folder(spec.uri), Records(spec, asked)
    tables: dict[str, Boxes] = {}
    digests: dict[str, str] = {}
    for path in metadata:
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
        boxes.check_unit(spec.coordinates, metadata[0])
    if missing := next((split for split in spec.splits or () if split not in tables), None):
        raise JobError(f"source.splits.{missing}", f"no row is of {spec.splits[missing]}", "check source.splits")
    where = metadata[0] if len(metadata) == 1 else ""
    return joined(folder, names, {split: (where, boxes) for split, boxes in tables.items()}, list(digests.values()))


def _image(folder: Folder, path: str, name: str) -> str:
    """The name below the directory of the metadata, where it is not absolute or a file of the folder as it stands."""
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    return name if beside not in folder.images and (name in folder.images or plain_parts(name)[1]) else beside


def _rows(text: str, path: str) -> Iterator[tuple[str, str, Any]]:
    """Where each row stands, its file name, and the row or its problem."""
    if path.endswith(".csv"):
        table = rows(text)
        _, header = next(table, (0, []))
        found = ((line, dict(zip(header, cells))) for line, cells in table)
    else:
        found = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    for number, row in found:
        where = f"{path} line {number}"
        try:
            row = json.loads(row) if isinstance(row, str) else row | {
                name: json.loads(row[name] or "null") for name in row if name in OBJECTS}
        except (ValueError, RecursionError) as error:
            name = _FILE_NAME.search(row) if isinstance(row, str) else None
            name = json.loads(name[1], strict=False) if name else row.get("file_name", "") if isinstance(row, dict) else ""
            yield where, name, Problem(UNDECODABLE, f"{where}: {error}", is_image=True)
            continue
        name = row.get("file_name") if isinstance(row, dict) else None
        yield where, name if isinstance(name, str) else "", (
            row if isinstance(name, str) and name else Problem("row without an image name", where, is_image=True))
