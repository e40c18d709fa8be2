"""Where in a record its objects are: which column or key has the boxes, which the classes, in what order corners stand."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from .....errors import JobError
from ..delimited import plain

Order = Literal["xywh", "xyxy"]
OBJECTS = ("objects", "annotations", "object", "annotation", "detections", "instances")
BOXES: Mapping[str, Order | None] = {
    "bbox": "xywh", "bboxxywh": "xywh", "boxesxywh": "xywh", "bboxesxywh": "xywh", "xywh": "xywh",
    "bboxxyxy": "xyxy", "boxesxyxy": "xyxy", "bboxesxyxy": "xyxy", "xyxy": "xyxy",
    "bboxes": None, "boxes": None, "box": None}
"""Name of boxes -> the order of their numbers; COCO's name stands for COCO's order."""
LABELS = tuple(word + end for word in ("category", "label", "class") for end in ("", "id", "ids", "name", "names")) + (
    "categories", "labels", "classes")
CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))


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
    """One name, or those of x1, y1, x2, y2."""
    labels: str | None
    iscrowd: str | None
    order: Order


@lru_cache
def layout_of(names: tuple[str, ...], inner: tuple[tuple[str, tuple[str, ...]], ...], asked: Asked,
              where: str) -> Layout | None:
    """The layout of a record with these names, of which some hold others; None if it has no boxes.

    JobError names what was found where it has several readings.
    """
    inside = dict(inner)
    objects = one_of(asked.objects, [name for name in inside if plain(name) in OBJECTS and inside[name]
                                     or plain(name) in BOXES and _boxes(inside[name], asked, where)], names,
                     "objects", where)
    parts = inside.get(objects, ()) if objects else names
    boxes = _boxes(parts, asked, where)
    if not boxes:
        return None
    labels = one_of(asked.labels, [name for name in parts if plain(name) in LABELS], parts, "labels", where)
    order = asked.box or ("xyxy" if len(boxes) == 4 else BOXES.get(plain(boxes[0])) or asked.default)
    if order is None:
        raise JobError("source.box", f"{boxes[0]} of {where} may be [x, y, width, height] or [x1, y1, x2, y2]",
                       "set it to xywh or xyxy")
    iscrowd = next((name for name in parts if plain(name) == "iscrowd"), None)
    return Layout(objects, boxes, labels, iscrowd, order)


def _boxes(parts: Collection[str], asked: Asked, where: str) -> tuple[str, ...]:
    one = one_of(asked.boxes, [name for name in parts if plain(name) in BOXES], parts, "boxes", where)
    if one:
        return (one,)
    by_name = {plain(name): name for name in parts}
    return next((tuple(by_name[name] for name in corners) for corners in CORNERS if set(corners) <= set(by_name)), ())


def one_of(asked: str | None, found: list[str], names: Collection[str], key: str, where: str) -> str | None:
    """The name that the job asks for, or the only one found; JobError if there are several, or not that one."""
    if asked:
        return asked if asked in names else None
    if len(found) > 1:
        raise JobError(f"source.{key}", f"{where} has {', '.join(found)}", f"set it to {' or '.join(found)}")
    return found[0] if found else None
