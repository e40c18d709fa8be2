"""One raw image and its annotations → one row of the Arrow dataset and its problems; rows → Arrow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa

from ..manifest import ARROW_SCHEMA
from ..sources.item import CHANGED, Item, Raw
from ..sources.objects import UNUSABLE, Objects, Problem
from .declared_size import DIFFERS, SCALED, TURNED, in_displayed_frame
from .image_header import image_size_hw

TOLERANCE_PX = 0.05
"""A box that leaves the image by less is a rounding error of its source, and is clipped without a problem."""

CLIPPED = "box clipped to the image"
LEFT_OUT = "object of a class that `classes` leaves out"
KEPT = {CLIPPED, TURNED, SCALED, LEFT_OUT, CHANGED}
"""Problems for which nothing is dropped, or only what the job asked for."""


@dataclass(frozen=True, slots=True)
class Row:
    """A dataset row."""

    image_id: int
    file_name: str
    image: bytes
    height_px: int
    width_px: int
    objects: Objects
    """The kept objects: labels of the dataset, boxes inside the displayed image, all in pixels, no problems."""


def build_row(item: Item, raw: Raw, class_map: tuple[int | None, ...]) -> tuple[Row | None, list[Problem]]:
    """The row, None if the image itself is bad, and all problems in the order of the annotations.

    `class_map` maps the source's class index to the dataset's; None leaves the class out, as the job asks, which is
    counted and is no loss.
    """
    wanted = _label_table(class_map)[raw.objects.labels]
    left_out = int(((wanted < 0) & (raw.objects.labels != UNUSABLE)).sum())
    notes = [Problem(LEFT_OUT, is_image=True, count=left_out)] if left_out else []
    num_objects = len(raw.objects) - left_out
    if raw.problem:
        return None, [*notes, replace(raw.problem, num_objects=num_objects)]
    try:
        height, width = image_size_hw(raw.image)
    except ValueError:
        return None, [*notes, Problem("undecodable image", f"{len(raw.image)} bytes", is_image=True,
                                      num_objects=num_objects)]
    size = np.array([width, height, width, height], np.float64)
    objects, problems = in_displayed_frame(raw, (height, width))
    if problems and problems[0].reason == DIFFERS:
        return None, [*notes, replace(problems[0], num_objects=num_objects)]
    objects = _in_pixels(objects, size) if raw.relative else objects
    labels, boxes = _label_table(class_map)[objects.labels], objects.boxes_xyxy
    clipped = np.maximum(np.minimum(boxes, size), 0)
    shift = np.abs(clipped - boxes).max(1, initial=0)
    kept = (labels >= 0) & (shift < np.inf) & _have_area(clipped)  # comparisons with NaN are false
    unchanged = kept & (shift <= TOLERANCE_PX)
    row_objects = Objects(labels, clipped, objects.iscrowd, _areas(objects.area, clipped), objects.num_rings,
                          objects.ring_lengths, objects.xy)
    if not unchanged.all():
        bad = ~unchanged & ((labels >= 0) | (objects.labels == UNUSABLE))
        problems += [objects.problems.get(position) or _problem(boxes[position], kept[position], width, height)
                     for position in np.flatnonzero(bad).tolist()]
        row_objects = row_objects.take(np.flatnonzero(kept))
    return Row(item.image_id, item.file_name, raw.image, height, width, row_objects), notes + problems


@lru_cache
def _label_table(class_map: tuple[int | None, ...]) -> np.ndarray:
    """The dataset's label for each of the source's, -1 if there is none; the last entry, -1, is for `UNUSABLE`."""
    return np.array([-1 if label is None else label for label in (*class_map, None)], np.int32)


def _in_pixels(objects: Objects, size: np.ndarray) -> Objects:
    xy = (objects.xy.reshape(-1, 2) * size[:2]).astype(np.float32).ravel()
    return replace(objects, boxes_xyxy=objects.boxes_xyxy * size, xy=xy)


def _have_area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


def _areas(annotated: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    missing = np.isnan(annotated)
    return np.where(missing, (boxes[:, 2:] - boxes[:, :2]).prod(1), annotated) if missing.any() else annotated


def _problem(box: np.ndarray, is_kept: bool, width_px: int, height_px: int) -> Problem:
    described = f"box {[round(value, 2) for value in box.tolist()]} in {width_px}x{height_px} px"
    if is_kept:
        return Problem(CLIPPED, described)
    if not np.isfinite(box).all():
        return Problem("box is not finite", described)
    return Problem("box outside the image" if _have_area(box[None])[0] else "box without area", described)


# --- Arrow ----------------------------------------------------------------------------------------------


def record_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    """The rows as Arrow columns; the images are copied once, into one buffer."""
    objects = Objects.joined([row.objects for row in rows])
    num_objects = [len(row.objects) for row in rows]
    boxes = pa.FixedSizeListArray.from_arrays(pa.array(objects.boxes_xyxy.astype(np.float32).ravel()), 4)
    rings = _lists(objects.ring_lengths, pa.array(objects.xy))
    columns = {
        "image_id": pa.array([row.image_id for row in rows], pa.int64()),
        "file_name": pa.array([row.file_name for row in rows]),
        "image": _binaries([row.image for row in rows]),
        "height_px": pa.array([row.height_px for row in rows], pa.int32()),
        "width_px": pa.array([row.width_px for row in rows], pa.int32()),
        "boxes_xyxy": _lists(num_objects, boxes),
        "labels": _lists(num_objects, pa.array(objects.labels)),
        "iscrowd": _lists(num_objects, pa.array(objects.iscrowd)),
        "area": _lists(num_objects, pa.array(objects.area.astype(np.float32))),
        "polygons": _lists(num_objects, _lists(objects.num_rings, rings)),
    }
    return pa.record_batch(columns, schema=ARROW_SCHEMA)


def _lists(lengths: Sequence[int], values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)), values)


def _binaries(values: Sequence[bytes]) -> pa.LargeBinaryArray:
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(values), buffers)
