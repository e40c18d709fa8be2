"""A generated detection dataset: coloured, rotated, overlapping shapes on textured background.

Every row is a function of (seed, index) alone, so any machine makes the same dataset in any order
and in parallel. The class depends on shape alone, not on colour. Random numbers are integers, and
the background is computed in numbers that float32 holds exactly; the JPEG encoder is the one in
OpenCV's wheel, whose transform is integer arithmetic.

n objects · S side of the image in pixels
"""

import math

import cv2
import numpy as np

from .spec import SHAPE_CLASSES

DEFAULT_SIZE_PX = 160
MAX_SHAPES = 6
MIN_SIDE, MAX_SIDE = 0.16, 0.45
"""Diameter of the circle around a shape, as a fraction of the image's side."""

MIN_VISIBLE_PART = 0.4
"""Fraction of a shape that later shapes leave visible at least."""

TRIES_PER_SHAPE = 8
JPEG_QUALITY = 92
FIXED_POINT_BITS = 4
"""Fractional bits of the integer coordinates that OpenCV draws with."""


def generate_shape_image(seed: int, index: int, size_px: int = DEFAULT_SIZE_PX) -> dict:
    """One dataset row: an encoded JPEG of (size_px, size_px) with 1 to 6 shapes and their labels.

    Keys are the dataset's columns: `image` bytes; `width_px`, `height_px`; `boxes_xyxy` (n lists of
    4, tight around the shape's outline, also where a later shape covers a part of it); `labels`
    (index into `SHAPE_CLASSES`); `iscrowd`; `area` in square pixels of the outline; `polygons` (per
    object one flat ring x, y, x, y, ...); `file_name`; `image_id`. ValueError below 32 px.
    """
    if size_px < 32:
        raise ValueError(f"shapes: size_px={size_px} is too small to draw on; choose 32 or more")
    rng = np.random.default_rng([seed, index])
    image = _background(size_px, rng)
    labels, outlines = _arrangement(size_px, rng)
    for outline in outlines:
        _paint(image, outline, rng)
    encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )[1]
    return {
        "image_id": index,
        "file_name": f"shapes-{seed}-{index:06d}.jpg",
        "image": encoded.tobytes(),
        "width_px": size_px,
        "height_px": size_px,
        "boxes_xyxy": [[*outline.min(0).tolist(), *outline.max(0).tolist()] for outline in outlines],
        "labels": labels,
        "iscrowd": [False] * len(labels),
        "area": [_area(outline) for outline in outlines],
        "polygons": [[outline.ravel().tolist()] for outline in outlines],
    }


def _background(size_px: int, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) uint8: soft coloured patches, stripes and grain, all in muted tones."""
    spread = _bilinear_weights(5, size_px)
    patches = spread @ rng.integers(60, 150, (5, 15)).astype(np.float32)  # along x
    patches = patches.reshape(size_px, 5, 3).transpose(1, 0, 2).reshape(5, -1)
    background = (spread @ patches).reshape(size_px, size_px, 3)  # along y
    slope_x, slope_y, period = rng.integers(0, 4), rng.integers(0, 4), rng.integers(12, 40)
    wave = np.arange(6 * size_px) % period
    wave = np.abs(wave - period // 2) * 24 // period
    along = np.arange(size_px)
    stripes = wave.astype(np.float32)[slope_y * along[:, None] + slope_x * along]
    grain = rng.integers(-10, 11, (size_px, size_px), dtype=np.int8)
    background += (stripes + grain)[:, :, None]
    return background.clip(0, 255, out=background).astype(np.uint8)


def _bilinear_weights(num_knots: int, size_px: int) -> np.ndarray:
    """(S, knots) weights of a linear interpolation, multiples of 1/256: float32 sums are exact."""
    position = np.arange(size_px) * (256 * (num_knots - 1)) // size_px
    weights = np.zeros((size_px, num_knots), np.float32)
    rows = np.arange(size_px)
    weights[rows, position // 256] = 1 - position % 256 / 256
    weights[rows, position // 256 + 1] = position % 256 / 256
    return weights


def _arrangement(size_px: int, rng: np.random.Generator) -> tuple[list[int], list[np.ndarray]]:
    """Labels and outlines, (k, 2) each, back to front; every shape stays visible enough."""
    labels, outlines = [], []
    sizes_px, visible_px = np.zeros(MAX_SHAPES + 1), np.zeros(MAX_SHAPES + 1)
    owner = np.zeros((size_px, size_px), np.uint8)  # number of the shape seen at each pixel
    for number in range(1, int(rng.integers(1, MAX_SHAPES + 1)) + 1):
        for _ in range(TRIES_PER_SHAPE):
            label = int(rng.integers(len(SHAPE_CLASSES)))
            outline = _outline(SHAPE_CLASSES[label], size_px, rng)
            x0, y0, x1, y1 = *outline.min(0).astype(int), *outline.max(0).astype(int) + 1
            before = owner[y0:y1, x0:x1]
            after = before.copy()
            cv2.fillPoly(after, [_fixed_point(outline - (x0, y0))], number, shift=FIXED_POINT_BITS)
            gained = [np.bincount(a.ravel(), minlength=MAX_SHAPES + 1) for a in (before, after)]
            still_px = visible_px + gained[1] - gained[0]
            if (still_px >= MIN_VISIBLE_PART * sizes_px)[1:].all():
                before[...] = after
                visible_px, sizes_px[number] = still_px, still_px[number]
                labels.append(label)
                outlines.append(outline)
                break
    return labels, outlines


def _outline(shape: str, size_px: int, rng: np.random.Generator) -> np.ndarray:
    """(k, 2) float64 vertices of a rotated shape completely inside the image, in 16ths of a pixel."""
    units = 1 << FIXED_POINT_BITS
    lowest, highest = (int(part * size_px * units / 2) for part in (MIN_SIDE, MAX_SIDE))
    radius = rng.integers(lowest, highest + 1) / units
    turn = 2 * math.pi * rng.integers(360) / 360
    vertices = {"circle": 32, "square": 4, "triangle": 3, "star": 10}[shape]
    angles = turn + 2 * math.pi * np.arange(vertices) / vertices
    reach = np.full(vertices, radius)
    if shape == "star":
        reach[1::2] *= 0.45
    around = reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    margin = math.ceil(radius) + 1
    centre = rng.integers(margin * units, (size_px - margin) * units, 2, endpoint=True) / units
    return np.rint((centre + around) * units) / units


def _fixed_point(outline: np.ndarray) -> np.ndarray:
    """Vertices for OpenCV, whose origin is the first pixel's centre, not its corner."""
    return np.rint((outline - 0.5) * (1 << FIXED_POINT_BITS)).astype(np.int32)


def _paint(image: np.ndarray, outline: np.ndarray, rng: np.random.Generator) -> None:
    """Fill an outline with a saturated colour of random hue, and draw a darker rim."""
    colour = rng.permutation([int(rng.integers(190, 256)), int(rng.integers(0, 256)), 20]).tolist()
    rim = [level // 3 for level in colour]
    vertices = [_fixed_point(outline)]
    cv2.fillPoly(image, vertices, colour, cv2.LINE_AA, FIXED_POINT_BITS)
    cv2.polylines(image, vertices, True, rim, 1, cv2.LINE_AA, FIXED_POINT_BITS)


def _area(outline: np.ndarray) -> float:
    """Area of a (k, 2) polygon (shoelace formula)."""
    x, y = outline.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
