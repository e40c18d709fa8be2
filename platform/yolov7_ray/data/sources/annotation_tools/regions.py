"""What people draw with annotation tools -> boxes: outlines are enclosed, what has no area is no object."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..objects import Annotation, Problem
from ..outline import enclosing
from .entries import Named

WITHOUT_AREA = {"point", "points", "line", "linestrip", "polyline"}
_BOXES = {"rectangle", "box"}


@dataclass(slots=True)
class Regions:
    """The objects of one image, in order, and a note for each that was read in another way than the plain one."""

    objects: list[Named | Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def enclose(self, label: Any, kind: str, points: Any) -> None:
        """Add the box around `points`, pairs of x and y; those of anything but a box are its outline, and kept."""
        if kind in WITHOUT_AREA:
            return self.lose(f"a {kind} has no area", f"'{label}'")
        try:
            xy = np.asarray(points, np.float64)
        except (TypeError, ValueError):
            xy = np.zeros(0)
        if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) < (2 if kind in _BOXES else 3):
            return self.lose("malformed box", f"{kind} '{label}': {str(points)[:80]}")
        rings = () if kind in _BOXES else (xy.astype(np.float32).ravel(),)
        self.add(label, kind, (*xy.min(0).tolist(), *xy.max(0).tolist()), rings)

    def rotated(self, label: Any, x0: float, y0: float, x1: float, y1: float, degrees: float) -> None:
        """Add a box, or where it is rotated about its centre, the upright one around it."""
        box = enclosing((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, math.radians(degrees))
        self.add(label, "rotated box" if degrees else "box", box if degrees else (x0, y0, x1, y1))

    def add(self, label: Any, kind: str, box_xyxy: tuple, rings: tuple = (), is_ignored: bool = False) -> None:
        """Add an object, or the problem that it has no label."""
        name = str(label if label is not None else "").strip()
        if not name:
            return self.lose("unknown class", f"a {kind} has no label")
        if kind not in _BOXES:
            self.notes.append(f"{kind}: the enclosing box taken")
        self.objects.append((name, Annotation(-1, box_xyxy, is_ignored, polygons=rings)))

    def lose(self, reason: str, detail: str) -> None:
        """Add a region that is no object."""
        self.objects.append(Problem(reason, detail))
