"""Records in JSON files of one's own: a list of them, one a line, or one a file, with the name of an image and objects.

Boxes are four numbers, in an order that the name of the key or source.box tells, or mappings such as {x, y, width,
height}, {left, top, right, bottom} or {xmin, ymin, xmax, ymax}. CreateML's `coordinates` are a centre and a size.
"""

import json
from collections.abc import Iterable

from ....errors import JobError
from ...files.listing import Listing
from ...files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ..item import RawSource
from .huggingface import METADATA
from .image_records import name_in, read_images
from .records.json_records import tells
from .records.layout import Asked

SUFFIXES = (".json", ".jsonl", ".ndjson")
OTHERS = {"score", "confidence", "annotation_id", "annotator", "lead_time", "images", "categories", "shapes"}
"""Keys of what a detector said, and of other formats."""


def evidence(listing: Listing) -> list[str]:
    """Files whose first records name a picture and hold boxes."""
    return [path for path in _files(listing, listing.probes(*SUFFIXES))
            if any(_is_image(record) and _is_picture(name_in(record)) for record in _first(listing.start(path), path))]


def _files(listing: Listing, paths: Iterable[str]) -> list[str]:
    """The files that hold records, but for Hugging Face's."""
    return [path for path in paths if path.rpartition("/")[2] not in METADATA
            and any(map(_is_image, _first(listing.start(path), path)))]


def _first(text: str, path: str) -> list:
    """The first records of a file, as far as its beginning goes."""
    if not path.lower().endswith(".json"):
        return _lines(text)
    return _entries(text) if text.lstrip()[:1] == "[" else _whole(text)


def _is_image(record) -> bool:
    """Whether a record names an image and may hold its objects."""
    return bool(tells(record) and name_in(record) and not OTHERS & record.keys())


def _is_picture(name: str) -> bool:
    return name.lower().partition("?")[0].endswith(IMAGE_SUFFIXES + OTHER_PICTURES)


def _whole(text: str) -> list:
    """The record that is the whole file, if it is one."""
    try:
        return [json.loads(text)]
    except ValueError:
        return []


def _entries(text: str) -> list:
    """The first entries of a list, as far as the text goes."""
    decode, position, found = json.JSONDecoder().raw_decode, text.index("[") + 1, []
    while len(found) < 20:
        try:
            entry, position = decode(text, len(text) - len(text[position:].lstrip(", \t\r\n")))
        except ValueError:
            break
        found.append(entry)
    return found


def _lines(text: str) -> list:
    found = []
    for line in text.splitlines()[:20]:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def read(spec) -> RawSource:
    """Read all files with records; JobError where there is none."""
    listing = Listing(spec.uri)
    paths = _files(listing, (path for path in listing.files if path.lower().endswith(SUFFIXES)))
    if not paths:
        raise JobError("source.uri", f"no JSON file at {spec.uri} has records with a file name and boxes",
                       "give the root of the data set")
    return read_images(spec, sorted(paths), Asked.by(spec))
