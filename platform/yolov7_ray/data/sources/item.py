"""What every format of raw data is read into: splits of light items, each one image and its annotations."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ... import storage
from ...errors import NotFound

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object as its source describes it."""

    label: int
    """Index into the source's classes."""
    box_xyxy: tuple[float, float, float, float]
    """0-based, in pixels, or in parts of the image where its item is `relative`."""
    iscrowd: bool = False
    """A region of many objects, or one that evaluation is to forgive."""
    area: float | None = None
    """Square pixels as annotated; None: the box's."""
    polygons: Sequence[np.ndarray] = ()
    """Rings, flat x, y, x, y float32, in the unit of the box."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an image or an object cannot be used as it is."""

    reason: str
    detail: str = ""
    is_image: bool = False
    """The whole image is dropped, not an object."""


@dataclass(frozen=True, slots=True)
class Raw:
    """What an item fetches: encoded bytes and annotations, problems among them."""

    image: bytes
    annotations: Sequence[Annotation | Problem]
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
    annotations: tuple[Annotation | Problem, ...] = ()

    def fetch(self) -> Raw:
        """Read the file."""
        return Raw(storage.read_bytes(self.uri), self.annotations)


@dataclass(frozen=True)
class RawSource:
    """All of a source that is known before images are read."""

    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    splits: dict[str, list[Item]]
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
