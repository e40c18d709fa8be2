"""One annotation file of Pascal VOC and of the tools that write its like: objects and declared size."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field

from .objects import Annotation, Problem
from .outline import enclosing

Named = tuple[str, Annotation]
ROTATED = "rotated box (robndbox): the enclosing box taken"
OUTLINED = "box taken from the outline"
REVERSED = "reversed corners of a box put in order"
DECIMAL_COMMA = "decimal comma read as a point"
_X, _Y = re.compile(r"^x\d*$"), re.compile(r"^y\d*$")


@dataclass(frozen=True, slots=True)
class Parsed:
    """Class name and annotation (label not set yet) of each object, and what else the XML says."""

    objects: list[Named | Problem]
    declared_hw: tuple[int, int] | None
    notes: list[str] = field(default_factory=list)
    """For each object that was read in another way than the plain one, which."""
    file_name: str = ""
    """Of the image, as the XML says."""


def parse(text: str) -> Parsed | Problem:
    """The content of an XML text; namespaces make no difference."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        return Problem("malformed annotation file", str(error), is_image=True)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
    notes: list[str] = []
    return Parsed([_parse_object(element, notes) for element in root.iter("object")], _declared_hw(root), notes,
                  (root.findtext("filename") or "").strip())


def _declared_hw(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        height, width = (int(float(root.findtext(f"size/{key}") or "")) for key in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _parse_object(element: ElementTree.Element, notes: list[str]) -> Named | Problem:
    name = (element.findtext("name") or "").strip()
    if not name:
        return Problem("unknown class", "an object has no name")
    try:
        box = _box_xyxy(element, notes)
    except ValueError:
        return Problem("malformed box", f"the bndbox of a '{name}' is incomplete")
    return name, Annotation(-1, box, iscrowd=(element.findtext("difficult") or "0").strip().lower() in ("1", "true"))


def _box_xyxy(element: ElementTree.Element, notes: list[str]) -> tuple[float, float, float, float]:
    """ValueError if there is no whole box."""
    if element.find("bndbox") is None and element.find("robndbox") is not None:
        notes.append(ROTATED)
        return enclosing(*_numbers(element, "robndbox", ("cx", "cy", "w", "h", "angle"), notes))
    outline = element.find("polygon")
    if element.find("bndbox") is None and outline is not None:
        xs, ys = ([float(part.text or "") for part in outline.iter() if axis.match(part.tag)] for axis in (_X, _Y))
        notes.append(OUTLINED)
        return min(xs), min(ys), max(xs), max(ys)
    xmin, ymin, xmax, ymax = _numbers(element, "bndbox", ("xmin", "ymin", "xmax", "ymax"), notes)
    if xmax < xmin or ymax < ymin:
        notes.append(REVERSED)
        xmin, xmax, ymin, ymax = *sorted((xmin, xmax)), *sorted((ymin, ymax))
    return xmin - 1, ymin - 1, xmax, ymax


def _numbers(element: ElementTree.Element, part: str, keys: tuple[str, ...], notes: list[str]) -> list[float]:
    texts = [element.findtext(f"{part}/{key}") or "" for key in keys]
    if any("," in text for text in texts):
        notes.append(DECIMAL_COMMA)
    return [float(text.replace(",", ".")) for text in texts]
