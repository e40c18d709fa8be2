"""Where in a record its objects are: which column or key has the boxes, which the classes, in what order corners stand."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from .....errors import JobError
from ..delimited import plain

Order = Literal["xywh", "xyxy", "cxcywh"]
OBJECTS = ("objects", "annotations", "object", "annotation", "detections", "instances")
BOXES: Mapping[str, Order | None] = {
    "bbox": "xywh", "bboxxywh": "xywh", "boxesxywh": "xywh", "bboxesxywh": "xywh", "xywh": "xywh",
    "bboxxyxy": "xyxy", "boxesxyxy": "xyxy", "bboxesxyxy": "xyxy", "xyxy": "xyxy",
    "bboxes": None, "boxes": None, "box": None, "box2d": None}
"""Name of boxes -> the order of their numbers; COCO's name stands for COCO's order."""
RARE_BOXES: Mapping[str, Order | None] = {"coordinates": "cxcywh", "boundingbox": None, "rect": None, "rectangle": None}
"""The same for names that count where there is no other; the first is CreateML's."""
LABELS = tuple(word + end for word in ("category", "label", "class") for end in ("", "id", "ids", "name", "names")) + (
    "categories", "labels", "classes")
SIDES: Mapping[tuple[str, str, str, str], Order] = {
    ("xmin", "ymin", "xmax", "ymax"): "xyxy", ("x1", "y1", "x2", "y2"): "xyxy", ("x0", "y0", "x1", "y1"): "xyxy",
    ("left", "top", "right", "bottom"): "xyxy", ("left", "top", "width", "height"): "xywh",
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"): "xywh", ("bboxleft", "bboxtop", "bboxwidth", "bboxheight"): "xywh",
    ("xmin", "ymin", "width", "height"): "xywh", ("xcenter", "ycenter", "width", "height"): "cxcywh",
    ("cx", "cy", "width", "height"): "cxcywh", ("cx", "cy", "w", "h"): "cxcywh"}
"""Names of the four numbers of a box -> what they are."""
CORNER_AND_SIZE = {("x", "y", "width", "height"): "xywh", ("x", "y", "w", "h"): "xywh"}
"""More of them, in a mapping that is a box and nothing else: elsewhere they may be a centre, or the image's own size."""


@dataclass(frozen=True)
class Asked:
    """What the job says of it."""

    objects: str | None
    boxes: str | None
    labels: str | None
    box: Order | None
    default: Order | None = None
    """Order where neither the job nor the name of the boxes tells."""

    @classmethod
    def by(cls, spec, default: Order | None = None) -> "Asked":
        """Of the keys of a source section."""
        return cls(spec.objects, spec.boxes, spec.labels, spec.box, default)


@dataclass(frozen=True)
class Layout:
    """Names of the parts of a record."""

    objects: str | None
    """What holds the other parts; None: the record itself does."""
    boxes: tuple[str, ...]
    """One name, or those of the four numbers."""
    labels: str | None
    iscrowd: str | None
    order: Order | None
    """Of four names, or of four numbers without names; None: nothing tells that."""

    def of_numbers(self, where: str) -> Order:
        """The order of boxes that are four numbers; JobError where nothing tells it."""
        if self.order is None:
            raise JobError("source.box", f"{self.boxes[0]} of {where} may be [x, y, width, height] or [x1, y1, x2, y2]",
                           "set it to xywh or xyxy")
        return self.order


@lru_cache
def layout_of(names: tuple[str, ...], inner: tuple[tuple[str, tuple[str, ...]], ...], asked: Asked,
              where: str) -> Layout | None:
    """The layout of a record with these names, of which some hold others; None if it has no boxes.

    JobError names what was found where it has several readings.
    """
    inside = dict(inner)
    objects = one_of(asked.objects, [name for name in inside if plain(name) in OBJECTS and inside[name]
                                     or plain(name) in (*BOXES, *LABELS) and _boxes(inside[name], asked, where)[0]
                                     and (_are_labelled(inside[name]) or not _are_labelled(names))],
                     names, "objects", where)
    parts = inside.get(objects, ()) if objects else names
    boxes, order = _boxes(parts, asked, where, is_record=not objects)
    if not boxes:
        return None
    labels = one_of(asked.labels, [name for name in parts if plain(name) in LABELS], parts, "labels", where)
    iscrowd = next((name for name in parts if plain(name) == "iscrowd"), None)
    return Layout(objects, boxes, labels, iscrowd, order)


def _are_labelled(names: Collection[str]) -> bool:
    return any(plain(name) in LABELS for name in names)


def _boxes(parts: Collection[str], asked: Asked, where: str, is_record: bool = False,
           ) -> tuple[tuple[str, ...], Order | None]:
    """The one name of boxes, or those of their four numbers, and what the numbers are."""
    for known in (BOXES, RARE_BOXES):
        if one := one_of(asked.boxes, [name for name in parts if plain(name) in known], parts, "boxes", where):
            return (one,), asked.box or known.get(plain(one)) or asked.default
        if sides := sides_of(tuple(parts), is_record):
            return sides
    return (), None


@lru_cache
def sides_of(names: tuple[str, ...], is_record: bool = False) -> tuple[tuple[str, ...], Order] | None:
    """The names of a box's four numbers among these, and what they are; None without them."""
    by_name = {plain(name): name for name in names}
    known = SIDES if is_record else SIDES | CORNER_AND_SIZE
    return next(((tuple(by_name[name] for name in sides), order) for sides, order in known.items()
                 if set(sides) <= set(by_name)), None)


def corners(values, order: Order) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of four numbers or arrays; ValueError or TypeError if they are none."""
    first, second, third, fourth = values
    if order == "xywh":
        return first, second, first + third, second + fourth
    if order == "cxcywh":
        return first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2
    return first, second, third, fourth


def one_of(asked: str | None, found: list[str], names: Collection[str], key: str, where: str) -> str | None:
    """The name that the job asks for, or the only one found; JobError if there are several, or not that one."""
    if asked:
        return asked if asked in names else None
    if len(found) > 1:
        raise JobError(f"source.{key}", f"{where} has {', '.join(found)}", f"set it to {' or '.join(found)}")
    return found[0] if found else None
