"""Outlines of objects: polygons as people write them, run-length masks, rotated boxes, and the boxes around them."""

import math
from typing import Any

Ring = list[float]


def rings_of(segmentation: Any) -> list[Ring]:
    """Rings of at least three points, each flat x, y, x, y; what is none is left out, masks too.

    Points may be flat, pairs, or mappings with x and y; one ring may stand without a list around it.
    """
    if not isinstance(segmentation, list) or not segmentation:
        return []
    if _is_number(segmentation[0]) or _is_point(segmentation[0]):
        segmentation = [segmentation]
    rings = (_ring(ring) for ring in segmentation if isinstance(ring, list))
    return [ring for ring in rings if len(ring) >= 6 and len(ring) % 2 == 0]


def _ring(ring: list) -> Ring:
    """The coordinates of one ring, none if there is anything else in it."""
    flat: list = []
    for entry in ring:
        if _is_number(entry):
            flat.append(entry)
        elif _is_point(entry):
            flat.extend((entry["x"], entry["y"]) if isinstance(entry, dict) else entry)
        else:
            return []
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_point(value: Any) -> bool:
    if isinstance(value, dict):
        return _is_number(value.get("x")) and _is_number(value.get("y"))
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def box_of(rings: list[Ring], segmentation: Any) -> tuple[float, float, float, float] | None:
    """The box around the rings, or around a run-length mask, compressed or not; None where there is neither."""
    if rings:
        xs = [x for ring in rings for x in ring[0::2]]
        ys = [y for ring in rings for y in ring[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    masks = segmentation if isinstance(segmentation, list) else [segmentation]
    boxes = [_mask_box(mask) for mask in masks if isinstance(mask, dict) and mask.get("counts")]
    if not boxes:
        return None
    return (min(box[0] for box in boxes), min(box[1] for box in boxes),
            max(box[2] for box in boxes), max(box[3] for box in boxes))


def _mask_box(mask: dict) -> tuple[float, float, float, float]:
    """ValueError or TypeError if it is not one."""
    from pycocotools import mask as coco_mask  # for the few files that have masks and no boxes

    height, width = map(int, mask["size"]) if "size" in mask else (0, 0)
    if height <= 0 or width <= 0:
        raise ValueError("a mask without size")
    counts = mask["counts"]
    if isinstance(counts, list):
        if sum(counts) != height * width or min(counts) < 0:
            raise ValueError("a mask whose counts are not its pixels")
        encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    else:
        encoded = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    x, y, box_width, box_height = map(float, coco_mask.toBbox(encoded))
    return x, y, x + box_width, y + box_height


def enclosing(cx: float, cy: float, width: float, height: float, angle: float) -> tuple[float, float, float, float]:
    """The upright box around one that is rotated by `angle`, in radians, about its centre."""
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    across, down = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    return cx - across, cy - down, cx + across, cy + down


def enclosing_ellipse(cx: float, cy: float, rx: float, ry: float, angle: float) -> tuple[float, float, float, float]:
    """The upright box around an ellipse that is rotated by `angle`, in radians, about its centre."""
    across = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    down = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return cx - across, cy - down, cx + across, cy + down
