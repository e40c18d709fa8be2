"""A tile: one source image warped into the output, with the objects that remain visible.

n objects
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .outlines import Outlines
from .sample import Sample, reduction
from .warp import areas, clip_boxes, is_axis_aligned, magnification, project_boxes, scaling, warp_into

MIN_SIDE_PX = 2.0
MAX_ASPECT_RATIO = 20.0
MIN_VISIBLE_FRACTION = 0.1
MIN_VISIBLE_FRACTION_OUTLINED = 0.01
"""An object remains a target if its warped box passes these thresholds, as in the reference implementation; the last
one where all objects of the source image have outlines, so that what is left of a box is known to hold the object."""


def draw_tile(
    canvas: np.ndarray,
    fetch: Callable[[int], Sample],
    full_hw: tuple[int, int],
    to_mosaic: np.ndarray,
    mosaic_px: int,
    view: np.ndarray,
) -> Sample | None:
    """Draw one source image on `canvas` and return it with its visible objects; None if out of view.

    `fetch(reduce)` returns the source, whose full size is `full_hw`. `to_mosaic` maps it to a square of
    side `mosaic_px`, which clips it, and `view` maps that square to `canvas`.
    """
    square = np.array([[0, 0, mosaic_px, mosaic_px]], float)
    full_box = np.array([[0, 0, full_hw[1], full_hw[0]]], float)
    crop = clip_boxes(project_boxes(np.linalg.inv(to_mosaic), square), full_box[0])
    matrix = view @ to_mosaic
    visible = clip_boxes(project_boxes(matrix, crop), (0, 0, canvas.shape[1], canvas.shape[0]))
    if areas(visible)[0] < 1:
        return None
    sample = fetch(reduction(magnification(view) * to_mosaic[0, 0]))
    decoded_hw = sample.image.shape[:2]
    decode_scale_xy = np.array([decoded_hw[1] / full_hw[1], decoded_hw[0] / full_hw[0]])
    to_canvas = matrix @ scaling(*1 / decode_scale_xy)
    warp_into(canvas, sample.image, to_canvas, crop[0] * decode_scale_xy[[0, 1, 0, 1]])
    return warp_objects(sample, matrix, crop[0], canvas.shape[:2])


def warp_objects(
    sample: Sample, matrix: np.ndarray, crop_xyxy: np.ndarray, size_hw: tuple[int, int]
) -> Sample:
    """Transform a sample's objects, not its image, by `matrix` into an output of `size_hw`.

    Objects are clipped to `crop_xyxy` of the source. An object with an outline gets the box around its
    warped outline, any other the box around its warped box. Crowds are dropped, and objects with a
    side of at most 2 px, an aspect ratio of 20 or more, or of whose clipped box, magnified, a tenth or less
    remains visible (a hundredth or less if all objects of the sample have outlines).
    """
    frame = np.array([0, 0, size_hw[1], size_hw[0]], float)
    outlined = np.array([len(rings) > 0 for rings in sample.polygons or [[]] * len(sample.labels)], bool)
    min_fraction = MIN_VISIBLE_FRACTION_OUTLINED if outlined[~sample.iscrowd].all() else MIN_VISIBLE_FRACTION
    inside = clip_boxes(sample.boxes_xyxy.astype(float), crop_xyxy)
    visible = clip_boxes(project_boxes(matrix, inside), frame)
    keep = ((visible[:, 2:] - visible[:, :2]).min(1) > MIN_SIDE_PX) & ~sample.iscrowd
    sample, visible, outlined = sample.select(keep), visible[keep], outlined[keep]
    before = areas(inside[keep]) * magnification(matrix) ** 2
    polygons = sample.polygons
    if polygons is not None:
        outlines = Outlines.of(polygons)
        if is_axis_aligned(matrix):  # both clipping rectangles become one
            bounds = clip_boxes(project_boxes(matrix, crop_xyxy[None]), frame)[0]
        else:
            outlines, bounds = outlines.clipped(crop_xyxy), frame
        warped = outlines.projected(matrix).clipped(bounds)
        visible = warped.boxes_xyxy(np.where(outlined[:, None], 0, visible))
        polygons = warped.polygons(len(polygons))
    sides = visible[:, 2:] - visible[:, :2]
    keep = (
        (sides.min(1) > MIN_SIDE_PX)
        & (areas(visible) > min_fraction * before)
        & (sides.max(1) < MAX_ASPECT_RATIO * sides.min(1))
    )
    return replace(sample, boxes_xyxy=visible.astype(np.float32), polygons=polygons).select(keep)


def merge_samples(image: np.ndarray, parts: list[Sample], size_hw: tuple[int, int], index: int) -> Sample:
    """One sample of `image` with the objects of all parts, and outlines if all parts have them.

    `size_hw` and `index` become its `original_size_hw` and `image_id`.
    """
    parts = [part for part in parts if len(part.labels)]
    has_polygons = all(part.polygons is not None for part in parts)
    return Sample(
        image=image,
        boxes_xyxy=np.concatenate([np.empty((0, 4), np.float32), *(p.boxes_xyxy for p in parts)]),
        labels=np.concatenate([np.empty(0, np.int64), *(p.labels for p in parts)]),
        iscrowd=np.concatenate([np.empty(0, bool), *(p.iscrowd for p in parts)]),
        area=np.concatenate([np.empty(0, np.float32), *(p.area for p in parts)]),
        polygons=sum((p.polygons for p in parts), []) if has_polygons else None,
        image_id=index,
        file_name="",
        original_size_hw=size_hw,
    )
