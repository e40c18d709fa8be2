"""Objects of JSON records: a list of objects, or lists of boxes and classes side by side."""

from collections.abc import Iterator
from typing import Any

from .....errors import JobError
from ...objects import UNUSABLE, Problem
from ..boxes import Boxes
from ..delimited import plain
from .labels import Labels
from .layout import BOXES, CORNER_AND_SIZE, LABELS, OBJECTS, Asked, Layout, corners, layout_of, sides_of


class Records:
    """Reads records into boxes; the classes are known when all are read."""

    def __init__(self, spec, asked: Asked):
        self.asked, self.labels = asked, Labels()
        self.only = self.labels.of(spec.classes[0]) if spec.classes and len(spec.classes) == 1 else None
        """The class of objects that name none."""

    def objects(self, record: Any, where: str) -> list[tuple | Problem] | None:
        """Box, provisional label and crowd of each object, or its problem; None if the record tells of none."""
        if not isinstance(record, dict):
            return None
        held = [name for name in record if name == self.asked.objects or plain(name) in OBJECTS]
        layout = layout_of(tuple(record), tuple((name, _keys(value)) for name, value in record.items()
                                                if isinstance(value, dict | list)), self.asked, where.partition(" ")[0])
        if layout is None:
            return [] if held and not record[held[0]] else None
        if layout.labels is None and self.only is None:
            raise JobError(where, f"names no class: {', '.join(record)}", "set source.labels, or source.classes to one")
        return list(self._entries(record[layout.objects] if layout.objects else record, layout, where))

    def _entries(self, value: dict | list, layout: Layout, where: str) -> Iterator[tuple | Problem]:
        if isinstance(value, list):
            for entry in value:
                if isinstance(entry, dict):
                    yield self._entry(*(_part(entry, name) for name in (layout.boxes, layout.labels, layout.iscrowd)),
                                      layout, where)
                else:
                    yield Problem("box is no four numbers", where)
            return
        boxes, labels, crowd = (_part(value, name) for name in (layout.boxes, layout.labels, layout.iscrowd))
        if len(layout.boxes) > 1 and all(isinstance(side, list) for side in boxes):
            boxes = list(zip(*boxes)) if len(set(map(len, boxes))) == 1 else []
        elif _is_one(boxes):
            boxes, labels, crowd = [boxes], [labels], [crowd]
        boxes = boxes if isinstance(boxes, list) else []
        if layout.labels and (not isinstance(labels, list) or len(labels) != len(boxes)):
            yield Problem("boxes and classes of different number", where, count=max(len(boxes), 1))
            return
        crowd = crowd if isinstance(crowd, list) and len(crowd) == len(boxes) else [False] * len(boxes)
        for box, label, flag in zip(boxes, labels if layout.labels else [None] * len(boxes), crowd):
            yield self._entry(box, label, flag, layout, where)

    def _entry(self, box, label, crowd, layout: Layout, where: str) -> tuple | Problem:
        order = layout.order
        if isinstance(box, dict) and (sides := sides_of(tuple(box))):
            is_centre = order == "cxcywh" and tuple(map(plain, sides[0])) in CORNER_AND_SIZE
            box, order = [box[name] for name in sides[0]], order if is_centre else sides[1]
        try:
            xyxy = corners(map(float, box), order or layout.of_numbers(where.partition(" ")[0]))
        except (TypeError, ValueError):
            return Problem("box is no four numbers", where)
        number = self.only if layout.labels is None else self.labels.of(label)
        if number == UNUSABLE:
            return Problem("unknown class", f"{label!r} in {where}")
        return xyxy, number, crowd in (1, True)


def tells(record: Any) -> bool:
    """Whether a record looks as if it had boxes."""
    if not isinstance(record, dict):
        return False
    holds = (plain(name) in OBJECTS or plain(name) in BOXES or plain(name) in LABELS and isinstance(value, list)
             and any(map(tells, value)) for name, value in record.items())
    return any(holds) or sides_of(tuple(record), is_record=True) is not None


def add(boxes: Boxes, image: int, entries: list[tuple | Problem], where: str) -> None:
    """Add the objects of a record to those of its split."""
    for entry in entries:
        if isinstance(entry, Problem):
            boxes.add_problem(image, entry)
        else:
            box, label, crowd = entry
            boxes.add(image, label, box, crowd, where)


def declared_hw(record: dict) -> tuple[int, int] | None:
    """Height and width of the image, if the record tells."""
    height, width = record.get("height"), record.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0 else None


def _keys(value: dict | list) -> tuple[str, ...]:
    entries = [value] if isinstance(value, dict) else value
    return tuple(dict.fromkeys(key for entry in entries if isinstance(entry, dict) for key in entry))


def _part(entry: dict, name: tuple[str, ...] | str | None):
    if isinstance(name, tuple):
        return entry.get(name[0]) if len(name) == 1 else [entry.get(part) for part in name]
    return entry.get(name) if name else None


def _is_one(box) -> bool:
    return isinstance(box, dict) or isinstance(box, list) and len(box) == 4 and not any(
        isinstance(part, list | dict) for part in box)
