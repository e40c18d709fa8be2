"""Pasting: objects copied into free places of an image, so that rare ones are seen more often.

n objects
"""

from dataclasses import replace

import cv2
import numpy as np

from .sample import Sample
from .warp import areas, clip_boxes, scaling, translation, warp_into

MAX_COVERED_PART = 0.3
"""A pasted object may hide this part of another object's box, and no more."""

MAX_PASTED_OBJECTS = 10
MIN_PASTED_SIDE_PX = 8


def hides_too_much(boxes_xyxy: np.ndarray, pasted_xyxy: np.ndarray) -> bool:
    """Whether `pasted_xyxy` (4,) covers more than the allowed part of any of (n, 4) boxes."""
    hidden = areas(clip_boxes(boxes_xyxy, pasted_xyxy))
    return bool((hidden > MAX_COVERED_PART * areas(boxes_xyxy)).any())


def paste_in(sample: Sample, donor: Sample, scale: float, rng: np.random.Generator) -> Sample:
    """Paste objects of `donor`, magnified by `scale`, at random free places of `sample`.

    Objects with an outline are cut out along it, others with their whole box. The donor's image may
    be decoded at reduced size. `sample.image` is drawn upon.
    """
    canvas = sample.image
    height, width = canvas.shape[:2]
    shrink_xy = np.array(donor.image.shape[1::-1]) / donor.original_size_hw[::-1]
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
        box_decoded = box * np.tile(shrink_xy, 2)
        _draw(canvas, donor.image, to_target @ scaling(*1 / shrink_xy), box_decoded, target, rings)
        boxes.append(target)
        chosen.append((i, [ring.astype(np.float32) for ring in rings]))
    if not chosen:
        return sample
    picked = [i for i, _ in chosen]
    polygons = sample.polygons
    if polygons is not None:
        polygons = polygons + [rings for _, rings in chosen]
    return _extended(sample, np.array(boxes), donor, picked, polygons)


def _draw(canvas, image, matrix, box_xyxy, target_xyxy, rings) -> None:
    """Draw the donor's box on its target, only inside `rings` (canvas pixels) where there are any."""
    left, top, right, bottom = target_xyxy.astype(int)
    window = canvas[top:bottom, left:right]
    pasted = window.copy() if rings else window
    warp_into(pasted, image, translation(-left, -top) @ matrix, box_xyxy)
    if rings:
        mask = _filled([ring - (left, top) for ring in rings], window.shape[:2])
        cv2.copyTo(pasted, mask, window)


def copy_paste(sample: Sample, probability: float, rng: np.random.Generator) -> Sample:
    """Paste mirrored copies of outlined objects where they hide little (simple copy-paste).

    Each outlined object is tried with `probability`; its copy lies where the image, mirrored left
    to right, would show it. `sample.image` stays as it is.
    """
    tried = rng.random(len(sample.labels)) < probability
    if sample.polygons is None or not tried.any():
        return sample
    width = sample.image.shape[1]
    boxes, polygons, picked = [*sample.boxes_xyxy], [*sample.polygons], []
    for i in np.flatnonzero(tried):
        x0, y0, x1, y1 = sample.boxes_xyxy[i]
        mirrored = np.array([width - x1, y0, width - x0, y1], np.float32)
        if not sample.polygons[i] or hides_too_much(np.array(boxes), mirrored):
            continue
        boxes.append(mirrored)
        polygons.append([ring * (-1, 1) + (width, 0) for ring in sample.polygons[i]])
        picked.append(i)
    if not picked:
        return sample
    mask = np.zeros(sample.image.shape[:2], np.uint8)
    for rings in polygons[-len(picked) :]:
        mask |= _filled(rings, mask.shape)
    image = cv2.copyTo(cv2.flip(sample.image, 1), mask, sample.image.copy())
    polygons = [[ring.astype(np.float32) for ring in rings] for rings in polygons]
    return _extended(replace(sample, image=image), np.array(boxes), sample, picked, polygons)


def _filled(rings: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 mask, 1 inside (k, 2) rings."""
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [np.rint(ring - 0.5).astype(np.int32) for ring in rings], 1)
    return mask


def _extended(sample: Sample, boxes_xyxy, donor: Sample, picked: list[int], polygons) -> Sample:
    """`sample` with the donor's picked objects added; `boxes_xyxy` and `polygons` hold all."""
    return replace(
        sample,
        boxes_xyxy=boxes_xyxy.astype(np.float32),
        labels=np.concatenate([sample.labels, donor.labels[picked]]),
        iscrowd=np.concatenate([sample.iscrowd, donor.iscrowd[picked]]),
        area=np.concatenate([sample.area, donor.area[picked]]),
        polygons=polygons,
    )
