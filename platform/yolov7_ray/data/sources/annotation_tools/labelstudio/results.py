"""A region of Label Studio, in percent of the image -> the box around it.

Boxes turn about their upper left corner. Regions of an image that was turned in the editor are turned back.
"""

import math
from typing import Any

import numpy as np

from ...outline import enclosing_ellipse
from ..regions import Regions
from .brush import box_of_strokes

ASIDE = ("choices", "text", "rating", "number", "taxonomy", "datetime", "ranker", "selected")
"""Keys of values that say something of an image, or of a region that another value describes."""
_TURNS = {0: lambda x, y: (x, y), 90: lambda x, y: (y, 1 - x), 180: lambda x, y: (1 - x, 1 - y),
          270: lambda x, y: (1 - y, x)}
"""Degrees by which an image is turned clockwise -> the place in it of a point of the turned one, in fractions."""


def value_of(result: dict) -> dict:
    """The value of a result, which is the result itself in JSON_MIN."""
    return result["value"] if isinstance(result.get("value"), dict) else result


def labels_of(value: dict) -> list:
    """The labels of a region, whatever its kind."""
    return next((labels for key, labels in value.items() if key.endswith("labels") and isinstance(labels, list)), [])


def add_region(regions: Regions, result: dict, size_hw: tuple[int, int] | None) -> None:
    """Add the region that a result describes, in pixels of an image of `size_hw`, or without it in fractions."""
    value = value_of(result)
    aside = next((key for key in ASIDE if key in value), "")
    if aside or result.get("type") == "relation":
        return regions.notes.append(f"{aside or 'relation'}, left aside")
    labels = labels_of(value) or [None]
    try:
        _add(regions, labels[0], value, int(result.get("image_rotation") or 0) % 360, size_hw)
    except (KeyError, TypeError, ValueError, OverflowError, IndexError):
        reason = "brush strokes that cannot be decoded" if "rle" in value else "malformed box"
        regions.lose(reason, f"'{labels[0]}': {str(value)[:80]}")
    if len(labels) > 1:
        regions.notes.append("region with several labels, the first taken")


def _add(regions: Regions, label: Any, value: dict, turned: int, size_hw: tuple[int, int] | None) -> None:
    """Add a region; KeyError, TypeError or ValueError if it is not Label Studio's."""
    height, width = size_hw or (1, 1)
    size = np.array([height, width] if turned in (90, 270) else [width, height], np.float64)  # of the turned image
    degrees = float(value.get("rotation") or 0)
    if degrees and size_hw is None:
        return regions.lose("rotated box without original_width and original_height", f"'{label}'")
    if "rle" in value or value.get("format") in ("rle", "mask"):
        if turned or size_hw is None:
            return regions.lose("brush strokes of a turned image, or of one whose size is not told", f"'{label}'")
        box = box_of_strokes(value["rle"], size_hw)
        if box is None:
            return regions.lose("brush strokes without a pixel", f"'{label}'")
        return regions.add(label, "brush strokes", box)
    if "points" in value:
        kind, points = "polygon", np.asarray(value["points"], np.float64) / 100
    elif "radiusX" in value:
        kind, points = "ellipse", _ellipse(value, size, degrees) / size
    elif "height" in value and not degrees and not turned:  # the usual case
        x, y, across, down = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
        return regions.add(label, "box", (x * width, y * height, (x + across) * width, (y + down) * height))
    elif "height" in value:
        kind, points = "rotated box" if degrees else "box", _box(value, size, degrees) / size
    elif "x" in value:
        return regions.notes.append("keypoint, left aside")
    else:
        return regions.lose("shape of an unknown kind", f"'{label}': {', '.join(value)}")
    if turned:
        regions.notes.append("region turned back with its image")
    x, y = _TURNS[turned](*points.T)
    points = np.stack([x * width, y * height], axis=1)
    if kind != "ellipse":
        return regions.enclose(label, kind, points)
    regions.add(label, kind, (*points.min(0).tolist(), *points.max(0).tolist()))


def _box(value: dict, size: np.ndarray, degrees: float) -> np.ndarray:
    """(4, 2) corners in pixels of the image as it was turned."""
    x, y, width, height = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, down = width * size[0] * np.array([cosine, sine]), height * size[1] * np.array([-sine, cosine])
    first = np.array([x, y]) * size
    return np.stack([first, first + along, first + along + down, first + down])


def _ellipse(value: dict, size: np.ndarray, degrees: float) -> np.ndarray:
    """(2, 2) corners of the box around it, in pixels of the image as it was turned."""
    x, y, across, down = (float(value[key]) / 100 for key in ("x", "y", "radiusX", "radiusY"))
    box = enclosing_ellipse(*(np.array([x, y]) * size), *(np.array([across, down]) * size), math.radians(degrees))
    return np.array(box).reshape(2, 2)
