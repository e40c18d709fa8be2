"""Records in JSON files of one's own: a list of them, one a line, or one a file, with the name of an image and objects.

Boxes are four numbers, in an order that the name of the key or source.box tells, or mappings such as {x, y, width,
height}, {left, top, right, bottom} or {xmin, ymin, xmax, ymax}. CreateML's `coordinates` are a centre and a size.
"""

import json

from ....errors import JobError
from ...files.listing import Listing
from ..item import RawSource
from .huggingface import METADATA
from .image_records import name_in, read_images
from .records.json_records import tells
from .records.layout import Asked

SUFFIXES = (".json", ".jsonl", ".ndjson")
SCORES = {"score", "confidence"}


def evidence(listing: Listing) -> list[str]:
    """Files whose first records name an image and hold boxes."""
    return [path for path in listing.probes(*SUFFIXES)
            if path.rpartition("/")[2] not in METADATA and _has_records(listing.start(path), path)]


def _has_records(text: str, path: str) -> bool:
    if path.lower().endswith(".json") and text.lstrip()[:1] == "[":
        return any(map(_is_image, _entries(text)))
    return any(map(_is_image, _lines(text) if not path.lower().endswith(".json") else _whole(text)))


def _is_image(record) -> bool:
    """Whether a record names an image and may hold its objects; those with a score are what a detector said."""
    return bool(tells(record) and name_in(record) and not SCORES & record.keys())


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
    paths = [path for path in listing.files if path.lower().endswith(SUFFIXES) and path.rpartition("/")[2] not in METADATA
             and _has_records(listing.start(path), path)]
    if not paths:
        raise JobError("source.uri", f"no JSON file at {spec.uri} has records with a file name and boxes",
                       "give the root of the data set")
    return read_images(spec, sorted(paths), Asked.by(spec))
