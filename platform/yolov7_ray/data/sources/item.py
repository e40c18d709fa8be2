"""The common form of all raw data formats: splits of lightweight items, each one image and its annotations."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ... import storage
from ...errors import NotFound
from .objects import Objects, Problem

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Raw:
    """Fetched item: encoded bytes and annotations, including problems."""

    image: bytes
    objects: Objects
    relative: bool = False
    declared_hw: tuple[int, int] | None = None
    """Height and width of the image by its annotations, if they tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image to ingest, without its bytes."""

    image_id: int
    file_name: str
    num_bytes: int
    """Size of the encoded image, exact or estimated; used to plan shards."""
    mark: str
    """Changes when the input does."""

    def fetch(self) -> Raw:
        """Read or make the image; called in parallel, also on other machines."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class FileItem(Item):
    """An image file whose annotations are known already."""

    uri: str
    objects: Objects
    declared_hw: tuple[int, int] | None = None

    def fetch(self) -> Raw:
        """Read the file."""
        return Raw(storage.read_bytes(self.uri), self.objects, declared_hw=self.declared_hw)


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


def problem_record(split: str, problem: Problem, file_name: str = "", image_id: int | None = None) -> dict:
    """One line of the file that lists what was dropped."""
    return {"split": split, "file_name": file_name, "image_id": image_id,
            "dropped": "image" if problem.is_image else "object",
            "reason": problem.reason, "detail": problem.detail}


def read_text(uri: str) -> str:
    """Read a text file; NotFound names the key that refers to it."""
    try:
        return storage.read_bytes(uri).decode("utf-8-sig", errors="replace")
    except NotFound:
        raise NotFound(uri, "there is no such file", "check source.uri and source.splits") from None
