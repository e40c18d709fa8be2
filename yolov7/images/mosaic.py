"""Mosaics: layout of four or nine images on one canvas (paper: Section 5.1, recipe).

Every image was resized to fit a square of side S, keeping its aspect ratio; the canvas has side 2 S.

k images, four or nine
"""

from collections.abc import Sequence

import numpy as np

CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
"""Corners of a rectangle, clockwise from the top left, as fractions of its size."""
CLOCKWISE = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""Direction from each corner to the next one."""


def places_of_four(sizes_hw: Sequence[tuple[int, int]], meeting_xy: np.ndarray) -> list[np.ndarray]:
    """Left and top of four images that meet in one point.

    In this order: top left, top right, bottom left, bottom right of the point.
    """
    sizes_before = np.array([(1, 1), (0, 1), (1, 0), (0, 0)])
    sizes_xy = np.array(sizes_hw)[:, ::-1]
    return list(meeting_xy - sizes_before * sizes_xy)


def places_of_nine(sizes_hw: Sequence[tuple[int, int]], centre_xy: np.ndarray) -> list[np.ndarray]:
    """Left and top of nine images: the first has its top left corner at `centre_xy`, eight surround it.

    From each corner of the first, two images follow along its side and beyond, clockwise in a
    pinwheel, so that images never overlap, whatever their aspect ratios.
    """
    sizes_xy = np.array(sizes_hw)[:, ::-1]
    offsets_xy = [np.asarray(centre_xy)]
    for side in range(4):
        along, outward = CLOCKWISE[side], CLOCKWISE[side - 1]
        corner = centre_xy + CORNERS[side] * sizes_xy[0]
        for size_xy in sizes_xy[1 + 2 * side : 3 + 2 * side]:
            offsets_xy.append(np.minimum(corner, corner + (along + outward) * size_xy))
            corner = corner + along * size_xy
    return offsets_xy
