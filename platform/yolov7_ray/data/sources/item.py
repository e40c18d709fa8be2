"""The common form of all raw data formats: splits of lightweight items, each one image and its annotations."""

import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ... import storage
from ...errors import Corrupt, NotFound
from ...storage.disk import Denied
from ..files.resolver import Resolver
from ..files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from .objects import Objects, Problem

LEFT_ASIDE = "file of another kind left aside"
NO_SPLIT = "picture that belongs to no split, left aside"
GONE = "file gone since it was listed"
DAMAGED = "file that arrives damaged"
DENIED = "file that may not be read"
CHANGED = "file changed since it was listed"
UNDECODABLE = "annotations that cannot be decoded"
LISTED = "image of a format that cannot be read"
UNREADABLE = (NotFound, Corrupt, Denied)
"""Errors of a file alone, not of the place where it lies."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Fetched item: encoded bytes and annotations, including problems."""

    image: bytes
    objects: Objects
    relative: bool = False
    declared_hw: tuple[int, int] | None = None
    """Height and width of the image by its annotations, if they tell."""
    problem: Problem | None = None
    """Why the image cannot be used, if its annotations cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image to ingest, without its bytes."""

    image_id: int
    file_name: str
    num_bytes: int
    """Size of the encoded image, exact or estimated; used to plan shards."""
    mark: str
    """Changes when the input does; empty: nobody knows."""
    is_file: ClassVar[bool] = False
    """Whether the image is a file whose size was listed."""

    def fetch(self) -> Raw:
        """Read or make the image; called in parallel, also on other machines."""
        raise NotImplementedError

    def labels(self) -> np.ndarray | None:
        """Class of each object, negative if unusable, told without reading the image; None: it cannot be told."""
        return None

    def known(self) -> tuple[Objects, tuple[int, int] | None, bool] | None:
        """Objects, declared size and whether they are relative; None: they are read with the image, and `mark` covers
        them."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileItem(Item):
    """An image file whose annotations are known already."""

    uri: str
    objects: Objects
    declared_hw: tuple[int, int] | None = None
    relative: bool = False
    is_file: ClassVar[bool] = True

    def fetch(self) -> Raw:
        """Read the file."""
        return Raw(storage.read_bytes(self.uri), self.objects, self.relative, self.declared_hw)

    def labels(self) -> np.ndarray:
        """Of the objects that are known already."""
        return self.objects.labels

    def known(self) -> tuple[Objects, tuple[int, int] | None, bool]:
        """The objects as they are."""
        return self.objects, self.declared_hw, self.relative


def fetched(item: Item) -> Raw:
    """The item's image and annotations; a file that is gone, damaged or not to be read is a problem."""
    try:
        return item.fetch()
    except UNREADABLE as error:
        reason = GONE if isinstance(error, NotFound) else DAMAGED if isinstance(error, Corrupt) else DENIED
        return Raw(b"", Objects.of([]), problem=Problem(reason, str(error), is_image=True))


def changes(item: Item, raw: Raw) -> list[Problem]:
    """That the image is another file now than was listed, by its size."""
    if not item.is_file or not item.mark or raw.problem or len(raw.image) == item.num_bytes:
        return []
    return [Problem(CHANGED, f"{item.num_bytes:,} bytes then, {len(raw.image):,} bytes now")]


@dataclass(frozen=True)
class RawSource:
    """Everything known about a source before images are read."""

    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    splits: dict[str, Sequence[Item]]
    """For large sources they hold columns, and make items on access."""
    problems: dict[str, list[dict]] = field(default_factory=dict)
    """Split -> records of entries that did not become items."""
    inputs: tuple[str, ...] = ()
    """Digests of the files read for this that no item's mark covers."""
    original_ids: tuple[dict, ...] = ()
    """Ids that are no 64-bit integers, and the numbers that stand for them: `split` and `image_id`, or `class_id`.

    Of several sources, those of their images and classes that have another id among all (`several/joined.py`)."""
    origin: dict = field(default_factory=dict)
    """`format` and `uri`, for the manifest."""


def problem_record(split: str, problem: Problem, file_name: str = "", image_id: int | None = None) -> dict:
    """One line of the file that lists what was dropped."""
    record = {"split": split, "file_name": file_name, "image_id": image_id,
              "dropped": "image" if problem.is_image else "object",
              "reason": problem.reason, "detail": problem.detail}
    if problem.count != 1:
        record["count"] = problem.count
    if problem.num_objects:
        record["objects"] = problem.num_objects
    return record


def note(split: str, reason: str, count: int, example: str) -> dict:
    """One line of that file for many entries of which nothing was dropped."""
    return {"split": split, "file_name": "", "image_id": None, "dropped": None, "reason": reason,
            "detail": example if count == 1 else f"e.g. {example}", "count": count}


def bends(split: str, resolver: Resolver) -> list[dict]:
    """What had to be bent to find the files of a split, a line for each kind."""
    return [note(split, f"file name found in spite of {how}", count, resolver.examples[how])
            for how, count in sorted(resolver.bent.items())]


def unreadable(path: str, num_objects: int = 0) -> Problem:
    """A picture that no decoder reads, with the objects that are lost with it."""
    return Problem(LISTED, f"{path}: convert it to JPEG or PNG", is_image=True, num_objects=num_objects)


def left_aside(paths: Iterable[str]) -> list[dict]:
    """One line for the pictures of a folder that belong to no split, and one for its other files that are not read."""
    pictures, others = [], []
    for path in sorted(paths):
        (pictures if path.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES) else others).append(path)
    notes = [note("", NO_SPLIT, len(pictures), pictures[0])] if pictures else []
    if others:
        kinds = Counter(posixpath.splitext(path)[1].lower() or "no ending" for path in others)
        counted = ", ".join(f"{count:,} x {kind}" for kind, count in kinds.most_common())
        notes.append(note("", LEFT_ASIDE, len(others), f"{others[0]} ({counted})"))
    return notes
