"""A COCO instances file parsed into columns: a tenth of the memory of its parsed entries.

n annotations · r rings of polygons · v coordinates
"""

import hashlib
from array import array
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from ... import storage
from ...errors import Corrupt, JobError, NotFound
from ...storage.disk import explained
from ..files.json_stream import JsonObject, NotJson
from ..files.text import MARK_BYTES, decode_chunks, encoding_of
from .outline import box_of, rings_of

CHUNK_BYTES = 1 << 20
MAX_SIDE_PX = 1 << 30
MAX_ID = 1 << 62
"""Integer ids are below this; any other id gets a code, numbered downwards from minus this."""


_NAMES = ("file_name", "coco_url", "path", "filename")
"""Keys of an image's name: LVIS has the address alone, others write it otherwise."""


class Instances:
    """Images, annotations and categories of a file; all annotations, including unusable ones, in file order."""

    def __init__(self, unusual: list[Any], codes: dict[Any, int]) -> None:
        self.sha256 = ""
        self.image_ids = array("q")
        self.file_names: list[str] = []
        self.sizes_hw = array("i")
        """Height and width declared for each image, 0 and 0 where they are not; flat."""
        self.categories: list[tuple[int, str]] = []
        self.groups: dict[str, set[str]] = {}
        """Supercategory -> names of the categories in it."""
        self.ids, self.of_image, self.category_ids = array("q"), array("q"), array("q")
        self.boxes_xyxy, self.area, self.iscrowd = array("d"), array("d"), array("b")
        self.num_rings, self.ring_lengths, self.xy = array("i"), array("i"), array("f")
        self.malformed: dict[int, str] = {}
        """Position -> text of the malformed box."""
        self.notes: dict[str, int] = {}
        """What was read in another way than the plain one -> how many annotations."""
        self._unusual, self._codes = unusual, codes  # of all files of a source, so that their codes agree

    def emptied(self) -> "Instances":
        """Empty columns that know the same ids."""
        return Instances(self._unusual, self._codes)

    def add_all(self, key: str, entries: Iterator[dict]) -> None:
        """The entries of the list `key`; KeyError, ValueError or similar if one is not COCO's."""
        add = {"images": self._add_image, "annotations": self._add_annotation,
               "categories": self._add_category}.get(key)
        for entry in entries:
            if add:
                add(entry)

    def _add_image(self, entry: dict) -> None:
        code = self.code(entry["id"])
        name = next((str(entry[key]) for key in _NAMES if entry.get(key)), None) or str(entry["file_name"])
        self.image_ids.append(code)
        self.file_names.append(name)
        self.sizes_hw.extend(_size_hw(entry))

    def _add_category(self, entry: dict) -> None:
        category_id, name = self.code(entry["id"]), str(entry["name"])
        self.categories.append((category_id, name))
        self.groups.setdefault(str(entry.get("supercategory")), set()).add(name)

    def _add_annotation(self, entry: dict) -> None:
        if isinstance(entry.get("segments_info"), list):
            for segment in entry["segments_info"]:
                self._note("object of a panoptic file, read as a box")
                self._add_annotation({**segment, "image_id": entry.get("image_id")})
            return
        if entry.get("keypoints"):
            self._note("keypoints left aside, the box taken")
        self.of_image.append(self.code(entry.get("image_id")))
        self.ids.append(self.code(entry.get("id")))
        self.category_ids.append(self.code(entry.get("category_id")))
        rings = rings_of(entry.get("segmentation"))
        try:
            box = self._box_xyxy(entry, rings)
        except (TypeError, ValueError):
            self.malformed[len(self.area)] = f"bbox {entry.get('bbox')!r}"
            box = (0.0, 0.0, 0.0, 0.0)
        self.boxes_xyxy.extend(box)
        self.area.append(_area(entry.get("area")))
        self.iscrowd.append(_flag(entry.get("iscrowd")))
        self.num_rings.append(len(rings))
        for ring in rings:
            self.ring_lengths.append(len(ring))
            self.xy.extend(ring)

    def _box_xyxy(self, entry: dict, rings: list[list[float]]) -> tuple[float, float, float, float]:
        """The box, or that of the outline where there is none; ValueError or TypeError if it is malformed."""
        bbox = entry.get("bbox")
        if not bbox or isinstance(bbox, list) and not any(bbox):
            outlined = box_of(rings, entry.get("segmentation"))
            if outlined is not None:
                self._note("box taken from the outline")
                return outlined
        x, y, width, height = map(float, bbox)
        return x, y, x + width, y + height

    def _note(self, what: str) -> None:
        self.notes[what] = self.notes.get(what, 0) + 1

    def code(self, identity: Any) -> int:
        """The integer code of an id, equal for 1, 1.0 and "1"; TypeError if it cannot be an id."""
        if isinstance(identity, float) and identity.is_integer():
            identity = int(identity)
        elif isinstance(identity, str):
            identity = identity.strip()
            if len(identity) < 20 and identity.removeprefix("-").isdecimal() and str(int(identity)) == identity:
                identity = int(identity)
        if isinstance(identity, int) and abs(identity) < MAX_ID:
            return identity
        if not isinstance(identity, int | float | str | None):
            raise TypeError(f"id {identity!r}")
        key = identity if identity is None else str(identity)
        if key not in self._codes:
            self._codes[key] = -MAX_ID - len(self._unusual)
            self._unusual.append(identity)
        return self._codes[key]

    def identity(self, code: int) -> Any:
        """The id that `code` represents."""
        return int(code) if code > -MAX_ID else self._unusual[-MAX_ID - code]


def _area(value: Any) -> float:
    """The area in square pixels, NaN (the box's is meant) where there is none that can be used."""
    try:
        area = float(value)
    except (TypeError, ValueError):
        return np.nan
    return area if 0 <= area < np.inf else np.nan


def _flag(value: Any) -> bool:
    """Whether a flag is set, also one written as text."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "0.0", "false", "no", "none", "null")
    return bool(value)


def _size_hw(entry: dict) -> tuple[int, int]:
    """The size that an image's entry declares; 0, 0 where it is none."""
    try:
        height, width = int(entry["height"]), int(entry["width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0, 0
    return (height, width) if 0 < height < MAX_SIDE_PX and 0 < width < MAX_SIDE_PX else (0, 0)


def read_instances(uri: str, instances: Instances) -> Instances:
    """Read the file at `uri`, with the ids known to empty `instances`; JobError if it is missing or not COCO's.

    It is streamed: where it arrives damaged it is read again.
    """
    for attempt in reversed(range(storage.FETCH_ATTEMPTS)):
        try:
            return _read(uri, instances.emptied())
        except NotFound:
            raise NotFound(uri, "there is no such file", "check source.uri and source.splits") from None
        except Corrupt:
            if not attempt:
                raise
        except OSError as error:
            raise explained(error, uri) from error
    raise AssertionError


def _read(uri: str, instances: Instances) -> Instances:
    with storage.opened(uri) as file:
        try:
            return _parse(file, uri, instances)
        except JobError:
            while file.read(CHUNK_BYTES):  # Corrupt, if damage is the cause
                pass
            raise


def _parse(file: BinaryIO, uri: str, instances: Instances) -> Instances:
    content = hashlib.sha256()
    document = JsonObject(_text_chunks(file, content, uri))
    is_list = {"images": False, "categories": False}
    try:
        for key in document.keys():
            is_list[key] = document.is_list()
            if is_list[key]:
                instances.add_all(key, document.entries())
            else:
                document.value()
    except NotJson as error:
        raise JobError(uri, f"is not JSON ({error})", "give a COCO instances file") from None
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise JobError(uri, f"has an entry that is not COCO's ({error!r})",
                       "every image needs id and file_name, every category id and name") from None
    for key in ("images", "categories", "annotations"):
        if not is_list.get(key, True):
            raise JobError(uri, f"has no list '{key}'", "give a COCO instances file")
    instances.sha256 = content.hexdigest()
    return instances


def _text_chunks(file: BinaryIO, content: "hashlib._Hash", uri: str) -> Iterator[str]:
    """The text in chunks; updates the digest `content`, without a byte order mark."""
    start = file.read(MARK_BYTES)
    encoding, skipped = encoding_of(start)

    def chunks() -> Iterator[bytes]:
        chunk = start[skipped:] + file.read(CHUNK_BYTES)
        while chunk:
            content.update(chunk)
            yield chunk
            chunk = file.read(CHUNK_BYTES)

    return decode_chunks(chunks(), encoding, skipped, uri)
