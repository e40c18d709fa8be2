"""Paste-in and copy-paste: objects copied into free areas of an image, so that rare ones occur more often.

n objects
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .sample import Sample
from .warp import areas, clip_boxes, scaling, translation, warp_into

MAX_COVERED_FRACTION = 0.3
"""Maximum fraction of another object's box that a pasted object may cover."""

SLOT_SIZES = (0.75,) * 2 + (0.5,) * 4 + (0.25,) * 4 + (0.125,) * 4 + (0.0625,) * 6
"""Largest sides of the slots of paste-in, as parts of the image's sides, in the order in which they are filled."""
SLOT_PROBABILITY = 0.8
MIN_SLOT_SIDE_PX = 20
MIN_PASTED_SIDE_PX = 10
MIN_PASTED_AREA_PX = 60


@dataclass(frozen=True, slots=True, eq=False)
class Donated:
    """An object that may be pasted: number `index` of a sample, whose image may be decoded at reduced size."""

    donor: Sample
    index: int


def hides_too_much(boxes_xyxy: np.ndarray, pasted_xyxy: np.ndarray) -> bool:
    """Whether `pasted_xyxy` (4,) covers more than the allowed fraction of any of (n, 4) boxes."""
    hidden = areas(clip_boxes(boxes_xyxy, pasted_xyxy))
    return bool((hidden > MAX_COVERED_FRACTION * areas(boxes_xyxy)).any())


def paste_in(sample: Sample, donated: Sequence[Donated], rng: np.random.Generator) -> Sample:
    """Paste random ones of `donated` into free slots of `sample`, each scaled to fit its slot.

    There are 20 slots, from large to small, each with probability 0.8, and of a random size up to its
    own. A slot is free if it covers less than 30 % of every box, those of objects pasted before, too. Objects
    with an outline are cut out along it, others with their whole box. The distribution of numbers and
    sizes is the reference implementation's; unlike there, pasted objects are not mirrored with the image.
    `sample.image` is modified in place.
    """
    height, width = sample.image.shape[:2]
    boxes, chosen = [*sample.boxes_xyxy], []
    for slot in _slots_xyxy(width, height, rng) if donated else ():
        if (slot[2:] - slot[:2]).min() <= MIN_SLOT_SIDE_PX or boxes and hides_too_much(np.array(boxes), slot):
            continue
        candidate = donated[rng.integers(len(donated))]
        pasted = _pasted_into(sample.image, candidate, slot)
        if pasted is not None:
            boxes.append(pasted[0])
            chosen.append((candidate, pasted[1]))
    if not chosen:
        return sample
    polygons = sample.polygons
    if polygons is not None:
        polygons = polygons + [rings for _, rings in chosen]
    return _with_objects(sample, np.array(boxes), [candidate for candidate, _ in chosen], polygons)


def _slots_xyxy(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """(m, 4) places to paste, m up to 20: sides uniform from 1 px, the centre anywhere, then clipped."""
    sizes = np.array(SLOT_SIZES)[rng.random(len(SLOT_SIZES)) < SLOT_PROBABILITY, None]
    image_xy = np.array([width, height])
    sides = rng.integers(1, np.maximum(sizes * image_xy, 1).astype(int), endpoint=True)
    corners = np.maximum(rng.integers(0, image_xy, sides.shape) - sides // 2, 0)
    return np.concatenate([corners, np.minimum(corners + sides, image_xy)], 1).astype(np.float32)


def _pasted_into(canvas: np.ndarray, candidate: Donated, slot_xyxy: np.ndarray):
    """Draw a candidate at the slot's corner, fitted into it; its box (4,) and rings, None if it is too small."""
    donor, index = candidate.donor, candidate.index
    box, corner = donor.boxes_xyxy[index].astype(float), slot_xyxy[:2]
    sides = box[2:] - box[:2]
    size_xy = (sides * ((slot_xyxy[2:] - corner) / np.maximum(sides, 1e-6)).min()).astype(int)
    if size_xy.min() <= MIN_PASTED_SIDE_PX:
        return None
    to_target = translation(*corner) @ scaling(*size_xy / sides) @ translation(*-box[:2])
    rings = donor.polygons[index] if donor.polygons is not None else []
    rings = [ring * to_target[[0, 1], [0, 1]] + to_target[:2, 2] for ring in _longest(rings)]
    target = np.concatenate([corner, corner + size_xy]).astype(np.float32)
    mask = _polygon_mask([ring - corner for ring in rings], tuple(size_xy[::-1])) if rings else None
    if mask is not None and np.count_nonzero(mask) <= MIN_PASTED_AREA_PX:
        return None
    decode_scale_xy = np.array(donor.image.shape[1::-1]) / donor.original_size_hw[::-1]
    matrix = to_target @ scaling(*1 / decode_scale_xy)
    _paste_object(canvas, donor.image, matrix, box * np.tile(decode_scale_xy, 2), target, mask)
    return target, [ring.astype(np.float32) for ring in rings]


def _longest(rings: list[np.ndarray]) -> list[np.ndarray]:
    """The ring of the most points alone: that of an object's largest visible part, mostly."""
    return [max(rings, key=len)] if rings else []


def _paste_object(canvas, image, matrix, box_xyxy, target_xyxy, mask) -> None:
    """Draw the donor's box on its target, only where `mask` (of the target's size) is set if there is one."""
    left, top, right, bottom = target_xyxy.astype(int)
    window = canvas[top:bottom, left:right]
    pasted = window if mask is None else window.copy()
    warp_into(pasted, image, translation(-left, -top) @ matrix, box_xyxy)
    if mask is not None:
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
    donated = [Donated(sample, i) for i in pasted_indices]
    return _with_objects(replace(sample, image=image), np.array(boxes), donated, polygons)


def _polygon_mask(rings: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 mask, 1 inside (k, 2) rings."""
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [np.rint(ring - 0.5).astype(np.int32) for ring in rings], 1)
    return mask


def _with_objects(sample: Sample, boxes_xyxy, pasted: Sequence[Donated], polygons) -> Sample:
    """`sample` with the pasted objects added; `boxes_xyxy` and `polygons` hold all."""

    def added(column: str) -> np.ndarray:
        own = getattr(sample, column)
        return np.concatenate([own, np.array([getattr(one.donor, column)[one.index] for one in pasted], own.dtype)])

    return replace(sample, boxes_xyxy=boxes_xyxy.astype(np.float32), labels=added("labels"),
                   iscrowd=added("iscrowd"), area=added("area"), polygons=polygons)
