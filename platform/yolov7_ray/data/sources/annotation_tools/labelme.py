"""LabelMe: a JSON file for each image, with shapes in pixels, and often with the image itself (imageData).

The image is imagePath, seen from the JSON file, or one of the JSON file's own name; else imageData is taken. Shapes
of one label and one group_id are parts of one object. An image without a JSON file has not been annotated: it is lost.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .... import storage
from ...files.listing import Listing
from ...files.text import decode
from ..item import Item, Raw, RawSource
from ..objects import Objects, Problem
from .entries import Entry, Named, each_file, stem_of, unusable
from .raw_source import source_of
from .regions import Regions

JOINED = "shape joined with others of its group_id"
_OURS = re.compile(r'^\s*\{[^[]*"(shapes|imageData)"\s*:')


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedItem(Item):
    """An image in its annotation file."""

    uri: str
    objects: Objects
    declared_hw: tuple[int, int] | None

    def fetch(self) -> Raw:
        """Read the annotation file and decode imageData."""
        data = json.loads(decode(storage.read_bytes(self.uri), self.uri))["imageData"]
        try:
            image = base64.b64decode(data.rpartition(",")[2])  # some write data:image/png;base64, before it
        except binascii.Error as error:
            problem = Problem("undecodable image", f"imageData: {error}", is_image=True)
            return Raw(b"", self.objects, problem=problem)
        return Raw(image, self.objects, declared_hw=self.declared_hw)

    def known(self) -> tuple[Objects, tuple[int, int] | None, bool]:
        """The objects as they are."""
        return self.objects, self.declared_hw, False


def evidence(listing: Listing) -> list[str]:
    """LabelMe's JSON files."""
    return [path for path in listing.probes(".json") if _OURS.search(text := listing.start(path))
            and any(f'"{key}"' in text for key in ("imagePath", "imageData", "points"))]


def read(spec) -> RawSource:
    """Read all splits with their annotations; without source.classes, all labels that occur, sorted."""
    listing = Listing(spec.uri)
    paths = sorted(path for path in listing.files if path.lower().endswith(".json"))
    entries = each_file(listing, paths, partial(_entries, listing), lambda path: [stem_of(path)])
    return source_of(spec, listing, entries, unlabelled="missing annotation file")


def _entries(listing: Listing, path: str, text: str) -> Iterator[Entry]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        yield unusable(path, [stem_of(path)], "malformed annotation file", str(error))
        return
    if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
        yield Entry(path=path, aside="JSON file of another kind, left aside")
        return
    regions, groups = Regions(), []
    for shape in document["shapes"]:
        _add(regions, shape if isinstance(shape, dict) else {})
        groups.append(shape.get("group_id") if isinstance(shape, dict) else None)
    objects = _joined(regions, groups)
    embedded = None
    if isinstance(data := document.get("imageData"), str) and data:
        embedded = partial(EmbeddedItem, uri=storage.join(listing.uri, path), num_bytes=len(data) * 3 // 4)
    yield Entry(path=path, names=[str(document.get("imagePath") or ""), stem_of(path)], objects=objects,
                notes=regions.notes, embedded=embedded, declared_hw=_declared_hw(document),
                mark=storage.digest(text.encode("utf-8", "surrogatepass"))[:16])


def _declared_hw(document: dict) -> tuple[int, int] | None:
    try:
        height, width = int(document["imageHeight"]), int(document["imageWidth"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _add(regions: Regions, shape: dict[str, Any]) -> None:
    """Add a shape; rectangles have two corners in any order, circles a centre and a point of the rim."""
    label, points, kind = shape.get("label"), shape.get("points"), str(shape.get("shape_type") or "polygon")
    if kind not in ("circle", "mask"):
        return regions.enclose(label, kind, points)
    try:
        (x0, y0), (x1, y1) = np.asarray(points, np.float64).tolist()
    except (TypeError, ValueError):
        return regions.lose("malformed box", f"{kind} '{label}': {str(points)[:80]}")
    if kind == "circle":
        radius = float(np.hypot(x1 - x0, y1 - y0))
        regions.add(label, kind, (x0 - radius, y0 - radius, x0 + radius, y0 + radius))
    else:  # its first and its last pixel
        regions.add(label, kind, (min(x0, x1), min(y0, y1), max(x0, x1) + 1, max(y0, y1) + 1))


def _joined(regions: Regions, groups: list) -> list[Named | Problem]:
    """The objects, those of one label and group in one; a part counts as a note."""
    objects: list[Named | Problem] = []
    positions: dict[tuple, int] = {}
    for entry, group in zip(regions.objects, groups, strict=True):
        if isinstance(entry, Problem) or group is None:
            objects.append(entry)
            continue
        name, part = entry
        position = positions.setdefault((name, str(group)), len(objects))
        if position == len(objects):
            objects.append(entry)
            continue
        whole = objects[position][1]
        corners = np.array([whole.box_xyxy, part.box_xyxy])
        box = (*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist())
        objects[position] = name, replace(whole, box_xyxy=box, polygons=(*whole.polygons, *part.polygons))
        regions.notes.append(JOINED)
    return objects
