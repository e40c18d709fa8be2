"""Paste-in and copy-paste: objects copied into free areas of an image, so that rare ones occur more often.

n objects
"""

from dataclasses import replace

import cv2
import numpy as np

from .sample import Sample
from .warp import areas, clip_boxes, scaling, translation, warp_into

MAX_COVERED_FRACTION = 0.3
"""Maximum fraction of another object's box that a pasted object may cover."""

MAX_PASTED_OBJECTS = 10
MIN_PASTED_SIDE_PX = 8


def hides_too_much(boxes_xyxy: np.ndarray, pasted_xyxy: np.ndarray) -> bool:
    """Whether `pasted_xyxy` (4,) covers more than the allowed fraction of any of (n, 4) boxes."""
    hidden = areas(clip_boxes(boxes_xyxy, pasted_xyxy))
    return bool((hidden > MAX_COVERED_FRACTION * areas(boxes_xyxy)).any())


def paste_in(sample: Sample, donor: Sample, scale: float, rng: np.random.Generator) -> Sample:
    """Paste objects of `donor`, scaled by `scale`, at random free positions of `sample`.

    Objects with an outline are cut out along it, others with their whole box. The donor's image may
    be decoded at reduced size. `sample.image` is modified in place.
    """
    canvas = sample.image
    height, width = canvas.shape[:2]
    decode_scale_xy = np.array(donor.image.shape[1::-1]) / donor.original_size_hw[::-1]
    donor = donor.select(~donor.iscrowd)
    boxes = [*sample.boxes_xyxy]
    chosen = []
    for i in rng.permutation(len(donor.labels))[:MAX_PASTED_OBJECTS]:
        box = donor.boxes_xyxy[i].astype(float)
        size_xy = np.rint((box[2:] - box[:2]) * scale).astype(int)
        if size_xy.min() < MIN_PASTED_SIDE_PX or size_xy[0] > width or size_xy[1] > height:
            continue
        corner = rng.integers(0, (width, height) - size_xy, endpoint=True)
        target = np.concatenate([corner, corner + size_xy]).astype(np.float32)
        if boxes and hides_too_much(np.array(boxes), target):
            continue
        to_target = (
            translation(*corner)
            @ scaling(*size_xy / (box[2:] - box[:2]))
            @ translation(*-box[:2])
        )
        rings = donor.polygons[i] if donor.polygons is not None else []
        rings = [ring * to_target[[0, 1], [0, 1]] + to_target[:2, 2] for ring in rings]
        box_decoded = box * np.tile(decode_scale_xy, 2)
        _paste_object(canvas, donor.image, to_target @ scaling(*1 / decode_scale_xy), box_decoded, target, rings)
        boxes.append(target)
        chosen.append((i, [ring.astype(np.float32) for ring in rings]))
    if not chosen:
        return sample
    pasted_indices = [i for i, _ in chosen]
    polygons = sample.polygons
    if polygons is not None:
        polygons = polygons + [rings for _, rings in chosen]
    return _with_objects(sample, np.array(boxes), donor, pasted_indices, polygons)


def _paste_object(canvas, image, matrix, box_xyxy, target_xyxy, rings) -> None:
    """Draw the donor's box on its target, only inside `rings` (canvas pixels) if there are any."""
    left, top, right, bottom = target_xyxy.astype(int)
    window = canvas[top:bottom, left:right]
    pasted = window.copy() if rings else window
    warp_into(pasted, image, translation(-left, -top) @ matrix, box_xyxy)
    if rings:
        mask = _polygon_mask([ring - (left, top) for ring in rings], window.shape[:2])
        cv2.copyTo(pasted, mask, window)


def copy_paste(sample: Sample, probability: float, rng: np.random.Generator) -> Sample:
    """Paste mirrored copies of outlined objects where they cover little (simple copy-paste).

    Each outlined object is tried with `probability`; its copy has its position in the horizontally
    flipped image. `sample.image` is not modified.
    """
    selected = rng.random(len(sample.labels)) < probability
    if sample.polygons is None or not selected.any():
        return sample
    width = sample.image.shape[1]
    boxes, polygons, pasted_indices = [*sample.boxes_xyxy], [*sample.polygons], []
    for i in np.flatnonzero(selected):
        x0, y0, x1, y1 = sample.boxes_xyxy[i]
        mirrored = np.array([width - x1, y0, width - x0, y1], np.float32)
        if not sample.polygons[i] or hides_too_much(np.array(boxes), mirrored):
            continue
        boxes.append(mirrored)
        polygons.append([ring * (-1, 1) + (width, 0) for ring in sample.polygons[i]])
        pasted_indices.append(i)
    if not pasted_indices:
        return sample
    mask = np.zeros(sample.image.shape[:2], np.uint8)
    for rings in polygons[-len(pasted_indices) :]:
        mask |= _polygon_mask(rings, mask.shape)
    image = cv2.copyTo(cv2.flip(sample.image, 1), mask, sample.image.copy())
    polygons = [[ring.astype(np.float32) for ring in rings] for rings in polygons]
    return _with_objects(replace(sample, image=image), np.array(boxes), sample, pasted_indices, polygons)


def _polygon_mask(rings: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 mask, 1 inside (k, 2) rings."""
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [np.rint(ring - 0.5).astype(np.int32) for ring in rings], 1)
    return mask


def _with_objects(sample: Sample, boxes_xyxy, donor: Sample, pasted_indices: list[int], polygons) -> Sample:
    """`sample` with the donor's objects `pasted_indices` added; `boxes_xyxy` and `polygons` hold all."""
    return replace(
        sample,
        boxes_xyxy=boxes_xyxy.astype(np.float32),
        labels=np.concatenate([sample.labels, donor.labels[pasted_indices]]),
        iscrowd=np.concatenate([sample.iscrowd, donor.iscrowd[pasted_indices]]),
        area=np.concatenate([sample.area, donor.area[pasted_indices]]),
        polygons=polygons,
    )
