"""A COCO instances file parsed into columns: a tenth of the memory of its parsed entries.

n annotations · r rings of polygons · v coordinates
"""

import codecs
import hashlib
import io
from array import array
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from ... import storage
from ...errors import JobError, NotFound
from ...storage.disk import explained
from .json_stream import JsonObject, NotJson

CHUNK_BYTES = 1 << 20
MAX_SIDE_PX = 1 << 30
MAX_ID = 1 << 62
"""Integer ids are below this; any other id gets a code, numbered downwards from minus this."""


class Instances:
    """Images, annotations and categories of a file; all annotations, including unusable ones, in file order."""

    def __init__(self) -> None:
        self.sha256 = ""
        self.image_ids = array("q")
        self.file_names: list[str] = []
        self.sizes_hw = array("i")
        """Height and width declared for each image, 0 and 0 where they are not; flat."""
        self.categories: list[tuple[int, str]] = []
        self.ids, self.of_image, self.category_ids = array("q"), array("q"), array("q")
        self.boxes_xyxy, self.area, self.iscrowd = array("d"), array("d"), array("b")
        self.num_rings, self.ring_lengths, self.xy = array("i"), array("i"), array("f")
        self.malformed: dict[int, str] = {}
        """Position -> text of the malformed box."""
        self._unusual: list[Any] = []
        self._codes: dict[Any, int] = {}

    def add_all(self, key: str, entries: Iterator[dict]) -> None:
        """The entries of the list `key`; KeyError, ValueError or similar if one is not COCO's."""
        add = {"images": self._add_image, "annotations": self._add_annotation,
               "categories": self._add_category}.get(key)
        for entry in entries:
            if add:
                add(entry)

    def _add_image(self, entry: dict) -> None:
        self.image_ids.append(int(entry["id"]))
        self.file_names.append(str(entry["file_name"]))
        self.sizes_hw.extend(_size_hw(entry))

    def _add_category(self, entry: dict) -> None:
        category_id, name = int(entry["id"]), str(entry["name"])
        self.categories.append((category_id, name))

    def _add_annotation(self, entry: dict) -> None:
        self.of_image.append(self.code(entry.get("image_id")))
        self.ids.append(self.code(entry.get("id")))
        self.category_ids.append(self.code(entry.get("category_id")))
        try:
            x, y, width, height = map(float, entry["bbox"])
            area = entry.get("area")
            area = np.nan if area is None else float(area)
        except (KeyError, TypeError, ValueError):
            self.malformed[len(self.area)] = f"bbox {entry.get('bbox')!r}"
            x = y = width = height = area = 0
        self.boxes_xyxy.extend((x, y, x + width, y + height))
        self.area.append(area)
        self.iscrowd.append(bool(entry.get("iscrowd", 0)))
        self._add_polygons(entry.get("segmentation"))

    def _add_polygons(self, segmentation: Any) -> None:
        """Rings of at least three points; RLE masks, used for crowds, are not polygons."""
        rings = segmentation if isinstance(segmentation, list) else ()
        kept = [ring for ring in rings if isinstance(ring, list) and len(ring) >= 6 and len(ring) % 2 == 0]
        self.num_rings.append(len(kept))
        for ring in kept:
            self.ring_lengths.append(len(ring))
            self.xy.extend(ring)

    def code(self, identity: Any) -> int:
        """The integer code of an id; TypeError if it cannot be an id."""
        if isinstance(identity, float) and identity.is_integer():
            identity = int(identity)
        if isinstance(identity, int) and abs(identity) < MAX_ID:
            return identity
        if identity not in self._codes:
            self._codes[identity] = -MAX_ID - len(self._unusual)
            self._unusual.append(identity)
        return self._codes[identity]

    def identity(self, code: int) -> Any:
        """The id that `code` represents."""
        return int(code) if code > -MAX_ID else self._unusual[-MAX_ID - code]


def _size_hw(entry: dict) -> tuple[int, int]:
    """The size that an image's entry declares; 0, 0 where it is none."""
    try:
        height, width = int(entry["height"]), int(entry["width"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0, 0
    return (height, width) if 0 < height < MAX_SIDE_PX and 0 < width < MAX_SIDE_PX else (0, 0)


def read_instances(uri: str) -> Instances:
    """Read the file at `uri`; JobError if it is missing or not COCO's."""
    try:
        with _opened(uri) as file:
            return _parse(file, uri)
    except (FileNotFoundError, NotFound):
        raise NotFound(uri, "there is no such file", "check source.uri and source.splits") from None
    except OSError as error:
        raise explained(error, uri) from error


def _opened(uri: str) -> BinaryIO:
    """The open file, or its content in memory: in S3 only a whole object can be verified."""
    return io.BytesIO(storage.read_bytes(uri)) if storage.is_remote(uri) else open(storage.absolute(uri), "rb")


def _parse(file: BinaryIO, uri: str) -> Instances:
    content = hashlib.sha256()
    document = JsonObject(_text_chunks(file, content))
    instances = Instances()
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


def _text_chunks(file: BinaryIO, content: "hashlib._Hash") -> Iterator[str]:
    """The text in chunks; updates the digest `content`, without a byte order mark."""
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while chunk := file.read(CHUNK_BYTES):
        content.update(chunk)
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)
