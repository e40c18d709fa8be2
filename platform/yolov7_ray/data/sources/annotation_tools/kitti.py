"""KITTI's object detection: a text file for each image, as label_2 beside image_2, with a line for each object.

Of the 15 columns (16 with a score) the type and the box in the image are taken; the others are of three dimensions.
A DontCare region holds objects that nobody labelled: it is a crowd of every class, which training does not use and in
which evaluation counts no detection as wrong. An image without a text file among labelled ones is lost. The lists in
ImageSets/ are the splits where there are any.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from .... import storage
from ....errors import JobError
from ...files.listing import MAX_PROBES, Listing
from ...files.split_names import lists_of_splits
from ...files.suffixes import IMAGE_SUFFIXES
from ...files.text import read_text
from ..item import RawSource, note
from ..objects import Annotation, Problem
from .entries import EVERY_CLASS, Entry, Named, each_file, stem_of, unusable
from .raw_source import source_of

COLUMNS = (15, 16)
IGNORED = "DontCare region, a crowd of every class"
SCORED = "label with a score (column 16), which is left aside"
UNLISTED = "image that no list in ImageSets names, left aside"
_LINE = re.compile(r"^\s*[^\s\d-]\S*(\s+[-+.\de]+){14,15}\s*$")


def evidence(listing: Listing) -> list[str]:
    """A label file."""
    for path in _label_files(listing)[:MAX_PROBES]:
        lines = [line for line in listing.start(path).splitlines()[:20] if line.strip()]
        if lines and all(map(_LINE.match, lines[:-1] or lines)):
            return [path]
    return []


def read(spec) -> RawSource:
    """Read all splits with their labels; without source.classes, all types that occur, sorted."""
    listing = Listing(spec.uri)
    entries = each_file(listing, _label_files(listing), _entries, _image_names)
    lists = {split: place for split, place in (spec.splits or {}).items() if place in listing.files}
    if not spec.splits:
        lists = lists_of_splits(listing.files)
        if any("testing" in path.split("/")[:-1] for path in listing.files):
            lists.pop("test", None)  # it numbers images of testing/, which have no labels
    if not lists:
        return source_of(spec, listing, entries, unlabelled="missing label file")
    if missing := set(spec.splits or ()) - lists.keys():
        raise JobError(f"source.splits.{missing.pop()}", "is a directory, and another split a list of images",
                       "give lists for all of them, or directories")
    source = source_of(spec.model_copy(update={"splits": None}), listing, _listed(listing, lists, entries),
                       unlabelled="missing label file", read=lists.values())
    if empty := next((split for split in lists if split not in source.splits), None):
        source.problems[next(iter(source.problems))].append(
            note(empty, "list of images without labels, left aside", 1, lists[empty]))
    return source


def _listed(listing: Listing, lists: dict[str, str], entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries, each of the split whose list names it; JobError if two do."""
    split_of: dict[str, str] = {}
    for split, place in lists.items():
        for line in read_text(storage.join(listing.uri, place)).splitlines():
            stem, ending = posixpath.splitext(posixpath.basename(line.strip()))
            stem += "" if ending.lower() in (".txt", *IMAGE_SUFFIXES) else ending
            if stem and split_of.setdefault(stem, split) != split:
                raise JobError(f"source.splits.{split}", f"{place} names {stem}, and {lists[split_of[stem]]} does, too",
                               "an image belongs to one split")
    found = set()
    for entry in entries:
        stem = stem_of(entry.path)
        found.add(stem)
        yield replace(entry, subset=split_of[stem]) if stem in split_of else replace(entry, aside=UNLISTED)
    for stem in sorted(split_of.keys() - found):
        missing = unusable(lists[split_of[stem]], [stem], "missing label file", f"none for {stem}")
        yield replace(missing, subset=split_of[stem])


def _label_files(listing: Listing) -> list[str]:
    """Text files in directories of labels; where there are none, those beside images of the same name."""
    texts = sorted(path for path in listing.files if path.lower().endswith(".txt"))
    inside = [path for path in texts if any(part.lower().startswith("label") for part in path.split("/")[:-1])]
    if inside or not texts:
        return inside
    stems = {path.rpartition(".")[0] for path in listing.files if path.lower().endswith(IMAGE_SUFFIXES)}
    return [path for path in texts if path[:-4] in stems]


def _entries(path: str, text: str) -> Iterator[Entry]:
    notes: list[str] = []
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    objects = [_object(path, number, columns, notes) for number, columns in lines]
    yield Entry(path=path, names=_image_names(path), objects=objects, notes=notes,
                mark=storage.digest(text.encode())[:16])


def _image_names(path: str) -> list[str]:
    """The image of a label file: image_2/ in place of label_2/, seen from there, or anywhere of the same name."""
    directory = path.rpartition("/")[0]
    counterpart = directory.replace("label", "image").replace("Label", "Image")
    return [posixpath.relpath(f"{counterpart}/{stem_of(path)}", directory or "."), stem_of(path)]


def _object(path: str, number: int, columns: list[str], notes: list[str]) -> Named | Problem:
    if len(columns) not in COLUMNS:
        return Problem("malformed label", f"{path}, line {number}: {len(columns)} columns, not 15 or 16")
    try:
        box = tuple(map(float, columns[4:8]))
    except ValueError:
        return Problem("malformed label", f"{path}, line {number}: the box is {' '.join(columns[4:8])}")
    notes += [SCORED] * (len(columns) == 16)
    if columns[0].lower() == "dontcare":
        notes.append(IGNORED)
        return EVERY_CLASS, Annotation(-1, box, iscrowd=True)
    return columns[0], Annotation(-1, box)
