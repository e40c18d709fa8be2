"""Mosaics: where four or nine images lie on one canvas (paper: Section 5.1, recipe).

Every image was fitted into a square of side S, keeping its shape; the canvas has side 2 S.

k images, four or nine
"""

from collections.abc import Sequence

import numpy as np

CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
"""Corners of a rectangle, clockwise from the left top, in parts of its size."""
CLOCKWISE = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""From each corner, the direction of the next one."""


def places_of_four(sizes_hw: Sequence[tuple[int, int]], meeting_xy: np.ndarray) -> list[np.ndarray]:
    """Left and top of four images that meet in one point.

    The first lies above left of it, then above right, below left, below right.
    """
    left_above = np.array([(1, 1), (0, 1), (1, 0), (0, 0)])
    sizes_xy = np.array(sizes_hw)[:, ::-1]
    return list(meeting_xy - left_above * sizes_xy)


def places_of_nine(sizes_hw: Sequence[tuple[int, int]], centre_xy: np.ndarray) -> list[np.ndarray]:
    """Left and top of nine images: the first has its left top at `centre_xy`, eight surround it.

    From each corner of the first, two run along its side and beyond, clockwise, as the arms of a
    windmill: so no image ever covers another, whatever their shapes.
    """
    sizes_xy = np.array(sizes_hw)[:, ::-1]
    places = [np.asarray(centre_xy)]
    for arm in range(4):
        along, outward = CLOCKWISE[arm], CLOCKWISE[arm - 1]
        corner = centre_xy + CORNERS[arm] * sizes_xy[0]
        for size_xy in sizes_xy[1 + 2 * arm : 3 + 2 * arm]:
            places.append(np.minimum(corner, corner + (along + outward) * size_xy))
            corner = corner + along * size_xy
    return places
