"""VGG Image Annotator: a JSON export or project of regions by image, with their shapes in pixels.

The class of a region is its attribute called class, label or the like, else its only one. A file without regions is an
image without objects.
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from .... import storage
from ....errors import JobError
from ...files.json_stream import members
from ...files.listing import Listing
from ..item import RawSource
from ..outline import enclosing_ellipse
from .entries import Entry, each_file
from .raw_source import source_of
from .regions import Regions

_CLASS = ("class", "label", "name", "type", "category", "object", "class_name", "label_name")
_PROJECT = "_via_img_metadata"


def evidence(listing: Listing) -> list[str]:
    """Exports of regions, and projects."""
    return [path for path in listing.probes(".json") if _is_via(listing.start(path))]


def _is_via(text: str) -> bool:
    return _PROJECT in members(text) or text.lstrip().startswith("{") and '"regions"' in text and (
        '"filename"' in text and '"file_attributes"' in text)


def read(spec) -> RawSource:
    """Read all splits with their annotations; without source.classes, all that occur, sorted."""
    listing = Listing(spec.uri)
    paths = sorted(path for path in listing.files if path.lower().endswith(".json"))
    return source_of(spec, listing, each_file(listing, paths, partial(_entries, listing.uri)))


def _entries(uri: str, path: str, text: str) -> Iterator[Entry]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise JobError(storage.join(uri, path), f"is not JSON ({error})", "export it from VIA again") from None
    images = document.get(_PROJECT, document) if isinstance(document, dict) else {}
    images = [image for image in images.values() if isinstance(image, dict) and "filename" in image and "regions" in image]
    if not images:
        yield Entry(path=path, aside="JSON file of another kind, left aside")
        return
    shapes = {image["filename"]: _mappings(image["regions"]) for image in images}
    attribute = _attribute([region.get("region_attributes") for regions in shapes.values() for region in regions],
                           storage.join(uri, path))
    for name, drawn in shapes.items():
        regions = Regions()
        for region in drawn:
            _add(regions, region, attribute)
        yield Entry(path=path, names=[str(name)], objects=regions.objects, notes=regions.notes,
                    mark=storage.digest(json.dumps(drawn, sort_keys=True).encode())[:16])


def _mappings(regions: Any) -> list[dict]:
    """The regions, which VIA 1 numbers."""
    entries = regions.values() if isinstance(regions, dict) else regions if isinstance(regions, list) else ()
    return [entry for entry in entries if isinstance(entry, dict)]


def _attribute(found: list[Any], where: str) -> str:
    """The attribute that names the class: one called so, else the only one; JobError where there is no telling."""
    names = list(dict.fromkeys(name for attributes in found if isinstance(attributes, dict) for name in attributes))
    called = [name for wanted in _CLASS for name in names if name.lower() == wanted]
    if not called and len(names) > 1:
        raise JobError(where, f"its regions have several attributes, and none is called class: {', '.join(names)}",
                       "rename the one that is the class")
    return (called or names or [""])[0]


def _add(regions: Regions, region: dict, attribute: str) -> None:
    """Add a region, or the problem that it is not VIA's."""
    shape = region.get("shape_attributes") if isinstance(region.get("shape_attributes"), dict) else {}
    attributes = region.get("region_attributes") if isinstance(region.get("region_attributes"), dict) else {}
    label, kind = attributes.get(attribute), str(shape.get("name"))
    if isinstance(label, dict):  # a check box: the names that are ticked
        label = next((name for name, is_set in label.items() if is_set), None)
    try:
        if kind == "rect":
            x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
            regions.add(label, "box", (x, y, x + width, y + height))
        elif kind in ("circle", "ellipse"):
            cx, cy, rx, ry = (float(shape[key]) for key in ("cx", "cy", *(("r", "r") if kind == "circle" else ("rx", "ry"))))
            regions.add(label, kind, enclosing_ellipse(cx, cy, rx, ry, float(shape.get("theta") or 0)))
        elif kind in ("polygon", "polyline", "point"):
            xs, ys = ((shape["cx"], shape["cy"]) if kind == "point" else (shape["all_points_x"], shape["all_points_y"]))
            regions.enclose(label, kind, list(zip(xs, ys, strict=True)) if kind != "point" else [(xs, ys)])
        else:
            regions.lose("shape of an unknown kind", f"{kind} '{label}'")
    except (KeyError, ValueError, TypeError):
        regions.lose("malformed box", f"{kind} '{label}': {str(shape)[:80]}")
