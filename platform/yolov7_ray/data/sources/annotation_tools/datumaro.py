"""Datumaro's own format: annotations/SPLIT.json with the items of a subset, and images/SPLIT/.

Boxes, polygons and run-length masks are objects; labels of whole images, points, polylines and captions are left aside.
"""

import json
from collections.abc import Iterator
from typing import Any

from .... import storage
from ....errors import JobError
from ...files.json_stream import members
from ...files.listing import Listing
from ..item import RawSource
from ..outline import box_of
from .entries import Entry, each_file, stem_of
from .raw_source import source_of
from .regions import Regions

_ASIDE = {"label", "points", "polyline", "caption", "skeleton", "cuboid_3d", "depth_annotation", "super_resolution_annotation"}


def evidence(listing: Listing) -> list[str]:
    """Files with categories and items."""
    return [path for path in listing.probes(".json") if ("categories", "{") in members(listing.start(path)).items()
            and '"label"' in listing.start(path)]


def read(spec) -> RawSource:
    """Read all splits with their annotations; without source.classes, the labels in their order."""
    listing = Listing(spec.uri)
    classes: dict[str, None] = {}

    def entries(path: str, text: str) -> Iterator[Entry]:
        where = storage.join(listing.uri, path)
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise JobError(where, f"is not JSON ({error})", "export it again") from None
        if not isinstance(document, dict) or not isinstance(document.get("items"), list):
            return iter([Entry(path=path, aside="JSON file of another kind, left aside")])
        try:
            names = [str(label["name"]) for label in document["categories"]["label"]["labels"]]
        except (KeyError, TypeError):
            raise JobError(where, "has no categories.label.labels with names", "export it again") from None
        classes.update(dict.fromkeys(names))
        return (_entry(path, item, names) for item in document["items"] if isinstance(item, dict))

    paths = sorted(path for path in listing.files if path.lower().endswith(".json"))
    found = list(each_file(listing, paths, entries))
    return source_of(spec, listing, found, list(classes))


def _entry(path: str, item: dict, names: list[str]) -> Entry:
    regions = Regions()
    for shape in item.get("annotations") or ():
        _add(regions, shape if isinstance(shape, dict) else {}, names)
    image = item.get("image") if isinstance(item.get("image"), dict) else {}
    name, split = str(image.get("path") or item.get("id") or ""), stem_of(path)
    size = image.get("size")
    is_size = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    return Entry(path=path, names=[f"images/{split}/{name}", name, str(item.get("id") or "")], objects=regions.objects,
                 notes=regions.notes, subset=split, declared_hw=tuple(size) if is_size else None,
                 mark=storage.digest(json.dumps(item, sort_keys=True).encode())[:16])


def _add(regions: Regions, shape: dict[str, Any], names: list[str]) -> None:
    """Add a shape, or the problem that it is not Datumaro's."""
    kind, number = str(shape.get("type")), shape.get("label_id")
    label = names[number] if isinstance(number, int) and 0 <= number < len(names) else None
    if kind in _ASIDE:
        return regions.notes.append(f"{kind}, left aside")
    try:
        if kind == "bbox":
            x, y, width, height = map(float, shape["bbox"])
            degrees = float((shape.get("attributes") or {}).get("rotation") or 0)
            regions.rotated(label, x, y, x + width, y + height, degrees)
        elif kind == "polygon":
            values = shape["points"]
            regions.enclose(label, kind, list(zip(values[0::2], values[1::2], strict=True)))
        elif kind == "ellipse":
            x0, y0, x1, y1 = map(float, shape["points"])
            regions.add(label, kind, (x0, y0, x1, y1))
        elif kind == "mask":
            regions.add(label, kind, box_of([], shape["rle"]) or (0, 0, 0, 0))
        else:
            regions.lose("shape of an unknown kind", f"{kind} '{label}'")
    except (KeyError, ValueError, TypeError):
        regions.lose("malformed box", f"{kind} '{label}': {str(shape)[:80]}")
