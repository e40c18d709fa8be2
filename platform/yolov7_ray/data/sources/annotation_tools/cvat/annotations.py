"""CVAT 1.1 for images and for video: XML files with the shapes of many images, beside images/, or tracks of shapes.

Classes are in the order of the task's labels. A task's subset is the split. Rotated boxes, polygons, masks, ellipses,
cuboids and skeletons are enclosed. Every frame of a video whose image is there is an image, also without shapes.
"""

import io
import math
import posixpath
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from ..... import storage
from .....errors import JobError
from ....files.listing import Listing
from ....files.split_names import split_within
from ....files.suffixes import IMAGE_SUFFIXES
from ...item import RawSource
from ...outline import enclosing_ellipse
from ..entries import Entry, each_file, stem_of
from ..raw_source import source_of
from ..regions import WITHOUT_AREA, Regions
from .tracks import INTERPOLATED, frames_of, images_of_frames, shapes_by_frame

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
        return _entries(listing, path, text, classes[path])

    paths = sorted(path for path in listing.files if path.lower().endswith(".xml"))
    found = list(each_file(listing, paths, entries))
    return source_of(spec, listing, found, [name for path in paths for name in classes[path]])


def _entries(listing: Listing, path: str, text: str, classes: list[str]) -> Iterator[Entry]:
    meta, tracks, uri = None, [], storage.join(listing.uri, path)
    try:
        for _, element in ElementTree.iterparse(io.StringIO(text)):
            if element.tag == "track":
                tracks.append(element)
            elif element.tag == "meta":
                meta = element
                classes += _labels(element)
            elif element.tag == "image":
                yield _entry(path, element)
                element.clear()
    except ElementTree.ParseError as error:
        raise JobError(uri, f"is not XML ({error})", "export it from CVAT again") from None
    if tracks:
        yield from _frames(listing, path, meta, tracks)


def _frames(listing: Listing, path: str, meta: ElementTree.Element | None,
            tracks: list[ElementTree.Element]) -> Iterator[Entry]:
    """An entry for each frame that has an image or a shape."""
    uri = storage.join(listing.uri, path)
    if len({track.get("task_id") for track in tracks}) > 1:
        raise JobError(uri, "has the tracks of several tasks, each with its own frames", "export every task of its own")
    frames = frames_of(meta)
    if frames is None:
        last = max((int(shape.get("frame", "0")) for track in tracks for shape in track
                    if shape.get("frame", "").isdecimal()), default=0)
        frames = range(last + 1)
    pictures = sorted(name for name in listing.files if name.lower().endswith(IMAGE_SUFFIXES))
    near = [name for name in pictures if name.startswith(path.rpartition("/")[0] + "/")]
    images, assumed = images_of_frames(uri, near or pictures, frames)
    shapes = shapes_by_frame(tracks, frames)
    declared_hw = _size_hw(*(meta.findtext(f".//original_size/{key}") if meta is not None else "" for key in ("height", "width")))
    for frame in sorted(images.keys() | shapes.keys()):
        regions = Regions()
        for label, shape, is_interpolated in shapes.get(frame, ()):
            _add_safely(regions, label, shape)
            regions.notes += [INTERPOLATED] * is_interpolated
        marks = [label + ElementTree.tostring(shape, "unicode") for label, shape, _ in shapes.get(frame, ())]
        name = posixpath.relpath(images[frame], path.rpartition("/")[0] or ".") if frame in images else f"frame_{frame:06d}"
        yield Entry(path=path, names=[name], objects=regions.objects,
                    notes=[*regions.notes, *([assumed] if assumed else [])], subset=split_within(stem_of(path)) or "",
                    declared_hw=declared_hw, image_id=frame, mark=storage.digest("".join(marks).encode())[:16])


def _labels(meta: ElementTree.Element) -> list[str]:
    """The names of the labels that boxes may have, without those of the points of skeletons."""
    return [name for label in meta.iter("label") if (name := (label.findtext("name") or "").strip())
            and label.findtext("type") not in _BOXLESS and not (label.findtext("parent") or "").strip()]


def _entry(path: str, image: ElementTree.Element) -> Entry:
    regions = Regions()
    for shape in image:
        _add_safely(regions, shape.get("label"), shape)
    name, subset = image.get("name", ""), image.get("subset", "")
    return Entry(path=path, names=[name, *([f"{subset}/{name}", f"images/{subset}/{name}"] if subset else [])],
                 objects=regions.objects, notes=regions.notes, subset=subset or (split_within(stem_of(path)) or ""),
                 declared_hw=_size_hw(image.get("height"), image.get("width")),
                 image_id=int(image.get("id", "")) if image.get("id", "").isdecimal() else None,
                 mark=storage.digest(ElementTree.tostring(image))[:16])


def _size_hw(height: str | None, width: str | None) -> tuple[int, int] | None:
    try:
        size = int(height or ""), int(width or "")
    except ValueError:
        return None
    return size if min(size) > 0 else None


def _add_safely(regions: Regions, label: str | None, shape: ElementTree.Element) -> None:
    """Add a shape, or the problem that it is not CVAT's."""
    try:
        _add(regions, label, shape)
    except (KeyError, ValueError, TypeError):
        regions.lose("malformed box", f"{shape.tag} '{label}': {str(shape.attrib)[:80]}")


def _add(regions: Regions, label: str | None, shape: ElementTree.Element) -> None:
    """Add a shape; KeyError, ValueError or TypeError if it is not CVAT's."""
    kind = shape.tag

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
