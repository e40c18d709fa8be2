"""Augmentation: mosaic, random view, mixup, pasted objects, colour (paper: Section 5.1, recipe).

The geometry of a sample is decided first, as one matrix per source image; only then are images
read, no larger than they will be seen and not at all when they fall outside the view, and drawn.
Every random choice comes from the generator that the caller gives, so the same generator state
makes the same sample.

n objects · S side of the output in pixels
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from yolov7 import paste
from yolov7.sample import PAD_GREY, REDUCED_DECODING, Sample, fitted_size_hw
from yolov7.warp import (
    areas,
    bounding_box,
    clip_boxes,
    clip_ring,
    magnification,
    project,
    project_boxes,
    rotation,
    scaling,
    shearing,
    translation,
    warp_into,
)

MIN_SIDE_PX = 2.0
MIN_VISIBLE_PART = 0.1
MAX_ASPECT_RATIO = 20.0
"""An object stays a target while its box passes these three after warping."""

MIXUP_BETA = 8.0
"""Both parameters of the beta distribution of mixup's weight: near one half, rarely near 0 or 1."""


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities (0 to 1) and ranges of the augmentation; defaults are the P5 recipe's."""

    mosaic: float = 1.0
    """Probability that four images share the canvas; otherwise one image is letterboxed."""
    mixup: float = 0.15
    """Probability that the image is blended with a second one made the same way."""
    hsv_hue: float = 0.015
    """Hue is multiplied by 1 +- this; at most 0.4."""
    hsv_saturation: float = 0.7
    """Saturation is multiplied by 1 +- this."""
    hsv_value: float = 0.4
    """Brightness is multiplied by 1 +- this."""
    rotate_degrees: float = 0.0
    """Turned by +- this."""
    translate: float = 0.2
    """Moved along each axis by +- this part of the output's side."""
    scale: float = 0.9
    """Magnified by 1 +- this; below 1."""
    shear_degrees: float = 0.0
    """Each axis slanted by +- this."""
    perspective: float = 0.0
    """Homogeneous weight gained per pixel from the centre, +- this; useful up to 0.001."""
    flip_vertical: float = 0.0
    """Probability of turning upside down."""
    flip_horizontal: float = 0.5
    """Probability of mirroring left and right."""
    paste_in: float = 0.0
    """Probability that objects of another image are pasted into free places (0.15 in P5)."""
    copy_paste: float = 0.0
    """Probability, per outlined object, that its mirror image is pasted into a free place."""

    def __post_init__(self) -> None:
        for name in ("mosaic", "mixup", "flip_vertical", "flip_horizontal", "paste_in",
                     "copy_paste", "translate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name}: {getattr(self, name)!r} is not within 0 to 1")
        if not 0 <= self.hsv_hue <= 0.4:
            raise ValueError(f"augment.hsv_hue: {self.hsv_hue!r} is not within 0 to 0.4")
        for name in ("scale", "hsv_saturation", "hsv_value"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"augment.{name}: {getattr(self, name)!r} is not in [0, 1)")
        if not 0 <= self.shear_degrees < 45:
            raise ValueError(
                f"augment.shear_degrees: {self.shear_degrees!r} is not from 0 to below 45"
            )

    @property
    def uses_polygons(self) -> bool:
        """Whether outlines make a difference beyond tightening boxes cut by the border."""
        return bool(
            self.rotate_degrees or self.shear_degrees or self.perspective or self.copy_paste
        )


def augmented_sample(
    read: Callable[..., Sample],
    num_samples: int,
    index: int,
    size_px: int,
    config: AugmentConfig,
    rng: np.random.Generator,
    size_hw: Callable[[int], tuple[int, int]] | None = None,
) -> Sample:
    """The training sample of `index`: an image of (size_px, size_px, 3) and its objects.

    `read(index)` gives any of `num_samples` samples, for mosaic and mixup draw partners among all
    of them. Where `size_hw(index)` can tell an image's height and width without decoding it,
    `read(index, reduce)` is called instead, with reduce 1, 2, 4 or 8, and images that the view
    leaves out are never read. The result's `image_id` is `index`: a mosaic is no single file.
    """
    source = _Source(read, num_samples, size_hw)
    sample = _view_of(source, index, size_px, config, rng)
    if rng.random() < config.mixup:
        other = _view_of(source, source.draw(rng), size_px, config, rng)
        sample = mixup(sample, other, float(rng.beta(MIXUP_BETA, MIXUP_BETA)))
    if config.copy_paste > 0:
        sample = paste.copy_paste(sample, config.copy_paste, rng)
    if rng.random() < config.paste_in:
        donor_index = source.draw(rng)
        magnify = 1 + rng.uniform(-config.scale, config.scale)
        full_hw, fetch = source.open(donor_index)
        scale = magnify * fitted_size_hw(full_hw, (size_px, size_px))[0]
        sample = paste.paste_in(sample, fetch(_reduction(scale)), scale, rng)
    return replace(sample, image=jitter_hsv(sample.image, config, rng))


class _Source:
    """The samples to draw from, and how much is known about them before they are decoded."""

    def __init__(self, read, num_samples, size_hw):
        self.read, self.num_samples, self.size_hw = read, num_samples, size_hw

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.num_samples))

    def open(self, index: int):
        """Full (height, width) of a sample, and a function from `reduce` to the sample."""
        if self.size_hw is None:
            sample = self.read(index)
            return sample.original_size_hw, lambda reduce: sample
        return self.size_hw(index), lambda reduce: self.read(index, reduce)


def _reduction(scale: float) -> int:
    """The strongest reduced decoding that still has a pixel for every output pixel."""
    return max(reduce for reduce in REDUCED_DECODING if reduce == 1 or scale * reduce <= 1)


def _view_of(source: _Source, index: int, size_px: int, config, rng) -> Sample:
    """A random view of a mosaic that starts with `index`, or of that image alone."""
    is_mosaic = rng.random() < config.mosaic
    canvas_px = 2 * size_px if is_mosaic else size_px
    canvas = np.full((size_px, size_px, 3), PAD_GREY, np.uint8)
    if is_mosaic:
        indices = [index] + [source.draw(rng) for _ in range(3)]
        meeting_xy = rng.uniform(0.5, 1.5, 2) * size_px
    else:
        indices = [index]
    view = random_view(canvas_px, size_px, config, rng)
    parts = []
    own_size_hw = None
    for corner, i in enumerate(indices):
        full_hw, fetch = source.open(i)
        own_size_hw = own_size_hw or full_hw
        fitted_hw = fitted_size_hw(full_hw, (size_px, size_px))[1]
        if is_mosaic:
            left_top = _mosaic_place(corner, meeting_xy, fitted_hw)
        else:
            left_top = (size_px - np.array(fitted_hw[::-1])) / 2
        place = translation(*left_top) @ scaling(
            fitted_hw[1] / full_hw[1], fitted_hw[0] / full_hw[0]
        )
        part = _draw_tile(canvas, fetch, full_hw, view, place, canvas_px)
        if part is not None:
            parts.append(part)
    return _gathered(canvas, parts, own_size_hw, index)


def _mosaic_place(corner: int, meeting_xy: np.ndarray, fitted_hw: tuple[int, int]) -> np.ndarray:
    """Left and top of a tile: 0 is above left of the meeting point, 1 above right, 2 and 3 below."""
    is_right, is_below = corner % 2, corner // 2
    return meeting_xy - (fitted_hw[1] * (1 - is_right), fitted_hw[0] * (1 - is_below))


def random_view(
    canvas_px: int, size_px: int, config: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """3x3 matrix from a canvas of side `canvas_px` to the output of side `size_px`.

    In this order, about the canvas' centre: perspective, magnification, rotation, shear, move to
    near the output's centre, flips.
    """

    def around(spread: float) -> float:
        return rng.uniform(-spread, spread)

    perspective = np.eye(3)
    perspective[2, :2] = around(config.perspective), around(config.perspective)
    magnify = 1 + around(config.scale)
    turn = rotation(around(config.rotate_degrees))
    slant = shearing(around(config.shear_degrees), around(config.shear_degrees))
    move = translation(
        (0.5 + around(config.translate)) * size_px, (0.5 + around(config.translate)) * size_px
    )
    flip = np.eye(3)
    if rng.random() < config.flip_horizontal:
        flip = translation(size_px, 0) @ scaling(-1, 1) @ flip
    if rng.random() < config.flip_vertical:
        flip = translation(0, size_px) @ scaling(1, -1) @ flip
    centred = translation(-canvas_px / 2, -canvas_px / 2)
    return flip @ move @ slant @ turn @ scaling(magnify, magnify) @ perspective @ centred


def _draw_tile(canvas, fetch, full_hw, view, place, canvas_px) -> Sample | None:
    """Draw one source image and return it with the objects that remain, None if out of view.

    `place` carries the full image to the mosaic's canvas, `view` that to the output.
    """
    frame = np.array([[0, 0, canvas_px, canvas_px]], float)
    whole = np.array([[0, 0, full_hw[1], full_hw[0]]], float)
    crop = clip_boxes(project_boxes(np.linalg.inv(place), frame), whole[0])[0]
    matrix = view @ place
    seen = clip_boxes(project_boxes(matrix, crop[None]), (0, 0, canvas.shape[1], canvas.shape[0]))
    if areas(seen)[0] < 1:
        return None
    sample = fetch(_reduction(magnification(view) * place[0, 0]))
    decoded_hw = sample.image.shape[:2]
    shrink_xy = np.array([decoded_hw[1] / full_hw[1], decoded_hw[0] / full_hw[0]])
    warp_into(canvas, sample.image, matrix @ scaling(*1 / shrink_xy), crop * np.tile(shrink_xy, 2))
    sample = sample.select(~sample.iscrowd)
    return warp_objects(sample, matrix, crop, canvas.shape[:2])


def warp_objects(
    sample: Sample, matrix: np.ndarray, crop_xyxy: np.ndarray, size_hw: tuple[int, int]
) -> Sample:
    """Carry a sample's objects, not its image, through `matrix` into an output of `size_hw`.

    Of each object only what lies inside `crop_xyxy` of the source can be seen. An object with an
    outline gets the box around its warped outline, any other the box around its warped box. Dropped
    are objects with a side of at most 2 px, a tenth of their box or less left, or an aspect ratio
    of 20 or more.
    """
    frame = np.array([0, 0, size_hw[1], size_hw[0]], float)
    boxes = sample.boxes_xyxy.astype(float)
    inside = clip_boxes(boxes, crop_xyxy)
    whole = project_boxes(matrix, boxes)
    seen = clip_boxes(project_boxes(matrix, inside), frame)
    polygons = None
    if sample.polygons is not None:
        polygons = []
        for i, rings in enumerate(sample.polygons):
            warped = []
            if rings:
                whole[i] = bounding_box([project(matrix, ring) for ring in rings])
                warped = [project(matrix, clip_ring(ring, crop_xyxy)) for ring in rings]
                warped = [clip_ring(ring, frame) for ring in warped]
                warped = [ring.astype(np.float32) for ring in warped if len(ring) > 2]
                seen[i] = bounding_box(warped) if warped else 0
            polygons.append(warped)
    sides = seen[:, 2:] - seen[:, :2]
    keep = (
        (sides.min(1) > MIN_SIDE_PX)
        & (areas(inside) > MIN_VISIBLE_PART * areas(boxes))
        & (areas(seen) > MIN_VISIBLE_PART * areas(whole))
        & (sides.max(1) < MAX_ASPECT_RATIO * sides.min(1))
    )
    return replace(sample, boxes_xyxy=seen.astype(np.float32), polygons=polygons).select(keep)


def _gathered(image: np.ndarray, parts: list[Sample], own_size_hw, index: int) -> Sample:
    """One sample on `image` with the objects of all parts, and outlines if all parts have them."""
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
        original_size_hw=own_size_hw,
    )


def mixup(first: Sample, second: Sample, weight: float) -> Sample:
    """Blend two samples of one size: weight * first + (1 - weight) * second, objects of both."""
    image = cv2.addWeighted(first.image, weight, second.image, 1 - weight, 0)
    return _gathered(image, [first, second], first.original_size_hw, first.image_id)


def jitter_hsv(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Multiply hue, saturation and value of an (H, W, 3) uint8 RGB image by random gains.

    One 3x3 transform of the HSV image is six times as fast as a table per channel. 8-bit hue counts
    half degrees up to 179, and going back OpenCV wraps what lies above: hence hue gains up to 1.4.
    """
    spread = np.array([config.hsv_hue, config.hsv_saturation, config.hsv_value])
    gains = 1 + rng.uniform(-1, 1, 3) * spread
    if not spread.any():
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.transform(hsv, np.diag(gains), dst=hsv)  # saturates at 255
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)
