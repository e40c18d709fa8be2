"""Augmentation: mosaic, random perspective, mixup, paste-in, copy-paste, HSV jitter (paper: Section 5.1, recipe).

The geometry of a sample is chosen first, as one matrix per source image. Only then are images decoded,
at no higher resolution than needed and not at all if they fall outside the output, and drawn.
Every random choice comes from the caller's generator, so the same generator state gives the same
sample.

n objects · S side of the output in pixels
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from . import paste
from .config import AugmentConfig
from .mosaic import places_of_four, places_of_nine
from .sample import PAD_GREY, Sample, fitted_size_hw, reduction
from .tile import draw_tile, merge_samples
from .warp import rotation, scaling, shearing, translation

MIXUP_BETA = 8.0
"""Both parameters of the beta distribution of mixup's weight, which is near 0.5, rarely near 0 or 1."""

MIN_DONATED = 30
"""Objects among which paste-in chooses, if `MAX_DONORS` images hold so many."""
MAX_DONORS = 32
"""Images that are read for paste-in at most: those of a window of partners."""


def augmented_sample(
    read: Callable[..., Sample],
    partners: Sequence[int],
    index: int,
    size_px: int,
    config: AugmentConfig,
    rng: np.random.Generator,
    size_hw: Callable[[int], tuple[int, int]] | None = None,
) -> Sample:
    """The training sample of `index`: an image of (size_px, size_px, 3) and its objects.

    `read(index)` returns any sample; mosaic, mixup and paste-in draw from `partners`. If
    `size_hw(index)` gives an image's height and width without decoding it, `read(index, reduce)`
    is called instead, with reduce 1, 2, 4 or 8, and images outside the output are never read.
    The result's `image_id` is `index`, since a mosaic has several source files.
    """
    source = _SampleSource(read, partners, size_hw)
    sample = _mosaic_or_single(source, index, size_px, config, rng)
    if rng.random() < config.mixup:
        [other] = source.draw(1, index, rng)
        other = _mosaic_or_single(source, other, size_px, config, rng)
        sample = mixup(sample, other, float(rng.beta(MIXUP_BETA, MIXUP_BETA)))
    if config.copy_paste > 0:
        sample = paste.copy_paste(sample, config.copy_paste, rng)
    sample = replace(sample, image=jitter_hsv(sample.image, config, rng))
    if rng.random() < config.paste_in:
        sample = paste.paste_in(sample, _donated_objects(source, index, size_px, rng), rng)
    return sample


class _SampleSource:
    """Samples to draw from, and their sizes where known before decoding."""

    def __init__(self, read, partners, size_hw):
        self.read, self.partners, self.size_hw = read, partners, size_hw

    def draw(self, count: int, index: int, rng: np.random.Generator) -> list[int]:
        """`count` different partners; repeated if there are too few, `index` if there are none."""
        available = len(self.partners)
        if not available:
            return [index] * count
        drawn = rng.choice(available, count, replace=available < count)
        return [int(self.partners[i]) for i in drawn]

    def open(self, index: int):
        """Full (height, width) of a sample, and a function from `reduce` to the sample."""
        if self.size_hw is None:
            sample = self.read(index)
            return sample.original_size_hw, lambda reduce: sample
        return self.size_hw(index), lambda reduce: self.read(index, reduce)


def _donated_objects(source: _SampleSource, index: int, size_px: int, rng) -> list[paste.Donated]:
    """Objects to paste: a random half of those of as many partners, four at a time, as give at least 30."""
    partners = iter(source.draw(min(len(source.partners), MAX_DONORS) or 1, index, rng))
    donated: list[paste.Donated] = []
    while len(donated) < MIN_DONATED and (group := list(itertools.islice(partners, 4))):
        objects = []
        for partner in group:
            full_hw, fetch = source.open(partner)
            donor = fetch(reduction(fitted_size_hw(full_hw, (size_px, size_px))[0]))
            objects += [paste.Donated(donor, int(i)) for i in np.flatnonzero(~donor.iscrowd)]
        donated += [objects[i] for i in rng.permutation(len(objects))[: -(-len(objects) // 2)]]
    return donated


def _mosaic_or_single(source: _SampleSource, index: int, size_px: int, config, rng) -> Sample:
    """A randomly transformed mosaic that starts with `index`, or that image alone."""
    indices, mosaic_px = [index], size_px
    if rng.random() < config.mosaic:
        count = 9 if rng.random() < config.mosaic_nine else 4
        indices += source.draw(count - 1, index, rng)
        mosaic_px = 2 * size_px
    sources = [source.open(i) for i in indices]
    sizes_hw = [fitted_size_hw(full_hw, (size_px, size_px))[1] for full_hw, _ in sources]
    if len(indices) == 1:
        offsets_xy = [(size_px - np.array(sizes_hw[0][::-1])) / 2]
    elif len(indices) == 4:
        offsets_xy = places_of_four(sizes_hw, rng.uniform(0.5, 1.5, 2) * size_px)
    else:
        offsets_xy = places_of_nine(sizes_hw, rng.uniform(0, 1, 2) * size_px)
    view = random_view(mosaic_px, size_px, config, rng)
    canvas = np.full((size_px, size_px, 3), PAD_GREY, np.uint8)
    tiles = []
    for (full_hw, fetch), (height, width), offset_xy in zip(sources, sizes_hw, offsets_xy):
        to_mosaic = translation(*offset_xy) @ scaling(width / full_hw[1], height / full_hw[0])
        tile = draw_tile(canvas, fetch, full_hw, to_mosaic, mosaic_px, view)
        if tile is not None:
            tiles.append(tile)
    return merge_samples(canvas, tiles, sources[0][0], index)


def random_view(
    mosaic_px: int, size_px: int, config: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """Random 3x3 matrix from a mosaic of side `mosaic_px` to the output of side `size_px`.

    In this order, about the mosaic's centre: perspective, scaling, rotation, shear, translation to
    near the output's centre, flips.
    """

    def symmetric(spread: float) -> float:
        return rng.uniform(-spread, spread)

    perspective = np.eye(3)
    perspective[2, :2] = symmetric(config.perspective), symmetric(config.perspective)
    magnify = rng.uniform(*config.magnification_range)
    rotate = rotation(symmetric(config.rotate_degrees))
    shear = shearing(symmetric(config.shear_degrees), symmetric(config.shear_degrees))
    translate = translation(
        (0.5 + symmetric(config.translate)) * size_px, (0.5 + symmetric(config.translate)) * size_px
    )
    flip = np.eye(3)
    if rng.random() < config.flip_horizontal:
        flip = translation(size_px, 0) @ scaling(-1, 1) @ flip
    if rng.random() < config.flip_vertical:
        flip = translation(0, size_px) @ scaling(1, -1) @ flip
    centred = translation(-mosaic_px / 2, -mosaic_px / 2)
    return flip @ translate @ shear @ rotate @ scaling(magnify, magnify) @ perspective @ centred


def mixup(first: Sample, second: Sample, weight: float) -> Sample:
    """Blend two samples of one size: weight * first + (1 - weight) * second, objects of both."""
    image = cv2.addWeighted(first.image, weight, second.image, 1 - weight, 0)
    return merge_samples(image, [first, second], first.original_size_hw, first.image_id)


def jitter_hsv(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Multiply hue, saturation and value of an (H, W, 3) uint8 RGB image by random gains.

    One 3x3 transform of the HSV image is six times as fast as a lookup table per channel. 8-bit hue is in
    units of 2 degrees up to 179, and OpenCV wraps larger values on conversion back: hence hue gains
    up to 1.4.
    """
    spread = np.array([config.hsv_hue, config.hsv_saturation, config.hsv_value])
    gains = 1 + rng.uniform(-1, 1, 3) * spread
    if not spread.any():
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.transform(hsv, np.diag(gains), dst=hsv)  # saturates at 255
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)
