"""The size that annotations declare for their image decides in which frame they are given.

Equal to the displayed size: as they are. Equal to the stored size alone, which EXIF turns: they are turned. A whole
multiple or fraction of either: scaled, too. Anything else is refused.
"""

from dataclasses import replace

import numpy as np

from yolov7.images.orientation import displayed_size_hw, read_orientation, upright_boxes, upright_points

from ..sources.item import Raw
from ..sources.objects import Objects, Problem

TURNED = "boxes turned to the image as displayed"
SCALED = "boxes scaled to the image's size"
DIFFERS = "declared size (width and height) is not the image's"

Size = tuple[int, int]


def in_displayed_frame(raw: Raw, size_hw: Size) -> tuple[Objects, list[Problem]]:
    """The objects in the displayed frame, of size `size_hw`, and what was done to them, or why they cannot be used."""
    if raw.declared_hw in (None, size_hw):
        return raw.objects, []
    orientation = read_orientation(raw.image)
    stored_hw = displayed_size_hw(size_hw, orientation)  # its own inverse
    sizes = f"declared {_in_words(raw.declared_hw)}, displayed {_in_words(size_hw)}"
    if raw.declared_hw == stored_hw:
        detail = f"{len(raw.objects)} of an image {sizes} by EXIF orientation {orientation}"
        return _turned(raw.objects, stored_hw, orientation), [Problem(TURNED, detail, is_image=True)]
    if is_multiple(raw.declared_hw, size_hw):
        return _scaled(raw.objects, raw.declared_hw, size_hw), [
            Problem(SCALED, f"{len(raw.objects)} of an image {sizes}", is_image=True)]
    if is_multiple(raw.declared_hw, stored_hw):
        turned = _turned(_scaled(raw.objects, raw.declared_hw, stored_hw), stored_hw, orientation)
        return turned, [Problem(SCALED, f"{len(raw.objects)} of an image {sizes}, and turned by EXIF orientation "
                                        f"{orientation}", is_image=True)]
    return raw.objects, [Problem(DIFFERS, f"{sizes}, stored {_in_words(stored_hw)}", is_image=True)]


def is_multiple(one: Size, other: Size) -> bool:
    """Whether one size is a whole multiple of the other, but for what rounding leaves of it."""
    small, large = sorted((one, other))
    factor = round(large[0] / small[0])
    return factor > 1 and all(abs(many - factor * few) < factor for few, many in zip(small, large, strict=True))


def _in_words(size_hw: Size) -> str:
    return f"{size_hw[1]}x{size_hw[0]} px"


def _turned(objects: Objects, stored_hw: Size, orientation: int) -> Objects:
    xy = upright_points(objects.xy.reshape(-1, 2), stored_hw, orientation).ravel()
    return replace(objects, boxes_xyxy=upright_boxes(objects.boxes_xyxy, stored_hw, orientation), xy=xy)


def _scaled(objects: Objects, declared_hw: Size, size_hw: Size) -> Objects:
    scale = np.array([size_hw[1] / declared_hw[1], size_hw[0] / declared_hw[0]])
    xy = (objects.xy.reshape(-1, 2) * scale).astype(np.float32).ravel()
    return replace(objects, boxes_xyxy=objects.boxes_xyxy * np.tile(scale, 2), area=objects.area * scale.prod(), xy=xy)
