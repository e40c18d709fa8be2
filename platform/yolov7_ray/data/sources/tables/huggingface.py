"""Hugging Face: images beside metadata.jsonl or metadata.csv, or Parquet as the `datasets` library writes it.

A row of metadata has `file_name`, below the metadata's own directory, and `objects` with boxes [x, y, width, height],
unless source.box says otherwise, and categories. In a CSV `objects` is JSON. Directories name the splits.
"""

import json

from ....errors import JobError
from ...files.listing import Listing
from ..item import RawSource
from . import parquet
from .delimited import first_cells
from .image_records import name_in, read_images
from .records.json_records import tells
from .records.layout import OBJECTS, Asked

METADATA = ("metadata.jsonl", "metadata.csv")


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
            if tells(record := json.loads(line)):
                return bool(name_in(record))
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
    return read_images(spec, metadata, asked)
