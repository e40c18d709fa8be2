"""What every format of raw data is read into: splits of light items, each one image and its annotations."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ... import storage
from ...errors import NotFound
from .objects import Objects, Problem

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Raw:
    """What an item fetches: encoded bytes and annotations, problems among them."""

    image: bytes
    objects: Objects
    relative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image to ingest, without its bytes."""

    image_id: int
    file_name: str
    num_bytes: int
    """Of the encoded image, exact or estimated: shards are planned by it."""
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

    def fetch(self) -> Raw:
        """Read the file."""
        return Raw(storage.read_bytes(self.uri), self.objects)


@dataclass(frozen=True)
class RawSource:
    """All of a source that is known before images are read."""

    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    splits: dict[str, Sequence[Item]]
    """Of large sources they hold columns, and make items when they are asked for."""
    problems: dict[str, list[dict]] = field(default_factory=dict)
    """Split -> records of what never became an item."""
    inputs: tuple[str, ...] = ()
    """Digests of the files that were read for this and that no item's mark covers."""


def problem_record(split: str, problem: Problem, file_name: str = "", image_id: int | None = None) -> dict:
    """One line of the file that lists what was dropped."""
    return {"split": split, "file_name": file_name, "image_id": image_id,
            "dropped": "image" if problem.is_image else "object",
            "reason": problem.reason, "detail": problem.detail}


def read_text(uri: str) -> str:
    """A text file; NotFound says which key names it."""
    try:
        return storage.read_bytes(uri).decode("utf-8-sig", errors="replace")
    except NotFound:
        raise NotFound(uri, "there is no such file", "check source.uri and source.splits") from None
