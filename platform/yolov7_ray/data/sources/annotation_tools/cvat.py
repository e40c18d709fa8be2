"""CVAT for images 1.1: XML files with the shapes of many images, beside images/.

Classes are in the order of the task's labels. A task's subset is the split. Rotated boxes, polygons, masks, ellipses,
cuboids and skeletons are enclosed. CVAT for video is refused: its tracks name no files.
"""

import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from .... import storage
from ....errors import JobError
from ...files.listing import Listing
from ...files.split_names import split_within
from ..item import RawSource
from ..outline import enclosing_ellipse
from .entries import Entry, each_file, stem_of
from .raw_source import source_of
from .regions import WITHOUT_AREA, Regions

_ROOT = re.compile(r"^\s*(<!--.*?-->\s*)*<annotations[\s>]", re.DOTALL)
_CUBOID = ("tl1", "bl1", "tr1", "br1", "tl2", "bl2", "tr2", "br2")
"""Its corners; their keys have x or y before them."""
_BOXLESS = {"tag", "points", "polyline"}
"""Types of labels that no box can have."""
TAG = "tag of a whole image, left aside"


def evidence(listing: Listing) -> list[str]:
    """CVAT's XML files, for video too."""
    return [path for path in listing.probes(".xml") if _ROOT.match(listing.start(path))]


def read(spec) -> RawSource:
    """Read all splits with their annotations; without source.classes, the labels of the tasks in their order."""
    listing = Listing(spec.uri)
    classes: dict[str, list[str]] = {}

    def entries(path: str, text: str) -> Iterator[Entry]:
        classes[path] = []
        if not _ROOT.match(text):
            return iter([Entry(path=path, aside="XML file of another kind, left aside")])
        return _entries(storage.join(listing.uri, path), path, text, classes[path])

    paths = sorted(path for path in listing.files if path.lower().endswith(".xml"))
    found = list(each_file(listing, paths, entries))
    return source_of(spec, listing, found, [name for path in paths for name in classes[path]])


def _entries(uri: str, path: str, text: str, classes: list[str]) -> Iterator[Entry]:
    try:
        for _, element in ElementTree.iterparse(io.StringIO(text)):
            if element.tag == "track":
                raise JobError(uri, "is CVAT for video: its tracks name frames, not image files",
                               "export the task as 'CVAT for images 1.1' (or COCO 1.0), with images")
            if element.tag == "meta":
                classes += _labels(element)
            elif element.tag == "image":
                yield _entry(path, element)
                element.clear()
    except ElementTree.ParseError as error:
        raise JobError(uri, f"is not XML ({error})", "export it from CVAT again") from None


def _labels(meta: ElementTree.Element) -> list[str]:
    """The names of the labels that boxes may have, without those of the points of skeletons."""
    return [name for label in meta.iter("label") if (name := (label.findtext("name") or "").strip())
            and label.findtext("type") not in _BOXLESS and not (label.findtext("parent") or "").strip()]


def _entry(path: str, image: ElementTree.Element) -> Entry:
    regions = Regions()
    for shape in image:
        try:
            _add(regions, shape)
        except (KeyError, ValueError, TypeError):
            regions.lose("malformed box", f"{shape.tag} '{shape.get('label')}': {str(shape.attrib)[:80]}")
    name, subset = image.get("name", ""), image.get("subset", "")
    try:
        height, width = int(image.get("height", "")), int(image.get("width", ""))
    except ValueError:
        height = width = 0
    return Entry(path=path, names=[name, *([f"{subset}/{name}", f"images/{subset}/{name}"] if subset else [])],
                 objects=regions.objects, notes=regions.notes, subset=subset or (split_within(stem_of(path)) or ""),
                 declared_hw=(height, width) if height > 0 and width > 0 else None,
                 image_id=int(image.get("id", "")) if image.get("id", "").isdecimal() else None,
                 mark=storage.digest(ElementTree.tostring(image))[:16])


def _add(regions: Regions, shape: ElementTree.Element) -> None:
    """Add a shape; KeyError, ValueError or TypeError if it is not CVAT's."""
    label, kind = shape.get("label"), shape.tag

    def numbers(*keys: str) -> list[float]:
        return [float(shape.attrib[key]) for key in keys]

    if kind == "box":
        regions.rotated(label, *numbers("xtl", "ytl", "xbr", "ybr"), float(shape.get("rotation", 0)))
    elif kind == "ellipse":
        angle = math.radians(float(shape.get("rotation", 0)))
        regions.add(label, kind, enclosing_ellipse(*numbers("cx", "cy", "rx", "ry"), angle))
    elif kind == "mask":
        left, top, width, height = numbers("left", "top", "width", "height")
        regions.add(label, kind, (left, top, left + width, top + height))
    elif kind == "cuboid":
        xs, ys = (numbers(*(axis + corner for corner in _CUBOID)) for axis in "xy")
        regions.add(label, kind, (min(xs), min(ys), max(xs), max(ys)))
    elif kind == "skeleton":
        points = [point for element in shape if element.get("outside", "0") != "1"
                  for point in _points(element.attrib["points"])]
        if not points:
            return regions.lose("a skeleton has no visible point", f"'{label}'")
        xs, ys = zip(*points)
        regions.add(label, kind, (min(xs), min(ys), max(xs), max(ys)))
    elif kind == "tag":
        regions.notes.append(TAG)
    elif kind == "polygon" or kind in WITHOUT_AREA:
        regions.enclose(label, kind, _points(shape.attrib["points"]))
    else:
        regions.lose("shape of an unknown kind", f"{kind} '{label}'")


def _points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split(";"))]
