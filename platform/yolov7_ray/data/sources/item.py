"""The common form of all raw data formats: splits of lightweight items, each one image and its annotations."""

import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ... import storage
from ...errors import Corrupt, NotFound
from ...storage.disk import Denied
from ...storage.file_list import FileColumns
from ..files.place import image_uri
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
        known = self.known()
        return known and known[0].labels

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

    def known(self) -> tuple[Objects, tuple[int, int] | None, bool]:
        """The objects as they are."""
        return self.objects, self.declared_hw, self.relative


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnItem(Item):
    """An image file, and the position of its objects in the columns."""

    siblings: "ColumnItems"
    index: int
    is_file: ClassVar[bool] = True

    def fetch(self) -> Raw:
        """Read the file."""
        objects, declared_hw, relative = self.known()
        return Raw(storage.read_bytes(image_uri(self.siblings.images_uri, self.file_name)), objects, relative, declared_hw)

    def known(self) -> tuple[Objects, tuple[int, int] | None, bool]:
        """The objects in the columns."""
        siblings, index = self.siblings, self.index
        height, width = siblings.sizes_hw[index].tolist()
        return (siblings.objects.cut(siblings.ends[index], siblings.ends[index + 1]),
                (height, width) if height and width else None, siblings.relative)


@dataclass(frozen=True, slots=True, eq=False)
class ColumnItems(Sequence[ColumnItem]):
    """Image files of a split, with all their objects in shared columns; a slice holds only its own objects."""

    images_uri: str
    image_ids: np.ndarray
    files: FileColumns
    sizes_hw: np.ndarray
    """(images, 2) as declared, 0 where they are not."""
    objects: Objects
    ends: np.ndarray
    """(images + 1, 3) where each image's objects end (`Objects.ends`), counted from those of the first image."""
    relative: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int | slice) -> "ColumnItem | ColumnItems":
        if isinstance(index, slice):
            first, last, _ = index.indices(len(self))
            return replace(self, image_ids=self.image_ids[first:last], files=self.files[first:last],
                           sizes_hw=self.sizes_hw[first:last],
                           objects=self.objects.cut(self.ends[first], self.ends[last]),
                           ends=self.ends[first:last + 1] - self.ends[first])
        index = range(len(self))[index]
        file = self.files[index]
        return ColumnItem(image_id=int(self.image_ids[index]), file_name=file.path, num_bytes=file.num_bytes,
                          mark=file.mark, siblings=self, index=index)

    def take(self, chosen: np.ndarray) -> "ColumnItems":
        """The images at the positions `chosen`, in that order, with copies of their objects."""
        objects, counts = self.objects.take_groups(self.ends, chosen)
        return replace(self, image_ids=self.image_ids[chosen], files=self.files.take(chosen.tolist()),
                       sizes_hw=self.sizes_hw[chosen], objects=objects, ends=objects.ends(counts))


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
