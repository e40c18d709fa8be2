"""One raw image and its annotations → one row of the Arrow dataset, and what was wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .header import image_size_hw
from .sources import Annotation, Item, Problem, Raw

TOLERANCE_PX = 0.05
"""A box that leaves the image by less is the rounding of its source, and is clipped without a word."""

CLIPPED = "box clipped to the image"
"""The one problem whose object is kept."""


@dataclass(frozen=True, slots=True)
class Row:
    """A dataset row; the fields are named as the Arrow columns."""

    image_id: int
    file_name: str
    image: bytes
    height_px: int
    width_px: int
    boxes_xyxy: list[tuple[float, float, float, float]]
    labels: list[int]
    iscrowd: list[bool]
    area: list[float]
    polygons: list[list[np.ndarray]]


def build_row(item: Item, raw: Raw, class_map: Sequence[int | None]) -> tuple[Row | None, list[Problem]]:
    """The row, or None where the image itself is bad, with all problems in the order of the annotations.

    `class_map` takes the source's class index to the dataset's; None drops the class without a problem, since
    the job asked for it.
    """
    try:
        height, width = image_size_hw(raw.image)
    except ValueError:
        return None, [Problem("undecodable image", f"{len(raw.image)} bytes", is_image=True)]
    row = Row(item.image_id, item.file_name, raw.image, height, width, [], [], [], [], [])
    problems: list[Problem] = []
    unit = np.array([width, height], np.float64) if raw.relative else np.ones(2)
    for annotation in raw.annotations:
        if isinstance(annotation, Problem):
            problems.append(annotation)
        elif class_map[annotation.label] is not None:
            problem = _add_object(row, annotation, class_map[annotation.label], unit)
            problems += [problem] if problem else []
    return row, problems


def _add_object(row: Row, annotation: Annotation, label: int, unit: np.ndarray) -> Problem | None:
    """Append an object, its box clipped to the image; what is wrong with it, if something is."""
    box = np.asarray(annotation.box_xyxy, np.float64) * np.tile(unit, 2)
    described = f"box {[round(float(value), 2) for value in box]} in {row.width_px}x{row.height_px} px"
    if not np.isfinite(box).all():
        return Problem("box is not finite", described)
    if (box[2:] <= box[:2]).any():
        return Problem("box without area", described)
    size = np.array([row.width_px, row.height_px], np.float64)
    clipped = box.clip(0, np.tile(size, 2))
    if (clipped[2:] <= clipped[:2]).any():
        return Problem("box outside the image", described)
    area = np.prod(clipped[2:] - clipped[:2]) if annotation.area is None else annotation.area
    row.boxes_xyxy.append(tuple(clipped.tolist()))
    row.labels.append(label)
    row.iscrowd.append(annotation.iscrowd)
    row.area.append(float(area))
    row.polygons.append([(np.reshape(ring, (-1, 2)) * unit).astype(np.float32).ravel()
                         for ring in annotation.polygons])
    return Problem(CLIPPED, described) if np.abs(clipped - box).max() > TOLERANCE_PX else None
