"""The outlines of all objects of an image as one array of points, transformed and clipped together.

K points · R rings · n objects
"""

from dataclasses import dataclass, replace

import numpy as np

from .sample import Polygons
from .warp import project


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """R rings of n objects; a ring may lose all its points, an object all its rings."""

    points_xy: np.ndarray
    """(K, 2) float, ring after ring."""
    ring_of_point: np.ndarray
    """(K,) int, ascending."""
    object_of_ring: np.ndarray
    """(R,) int, ascending."""

    @classmethod
    def of(cls, polygons: Polygons) -> "Outlines":
        """From a list of rings per object, each (k, 2)."""
        rings = [ring for rings in polygons for ring in rings]
        return cls(
            points_xy=np.concatenate([np.empty((0, 2)), *rings]),
            ring_of_point=_repeat_indices([len(ring) for ring in rings]),
            object_of_ring=_repeat_indices([len(rings) for rings in polygons]),
        )

    def polygons(self, num_objects: int) -> Polygons:
        """Back to a list of (k, 2) float32 rings per object, without empty rings."""
        found: Polygons = [[] for _ in range(num_objects)]
        points = self.points_xy.astype(np.float32)
        starts = _run_starts(self.ring_of_point)
        for start, end in zip(starts, np.append(starts[1:], len(points))):
            found[self.object_of_ring[self.ring_of_point[start]]].append(points[start:end])
        return found

    def projected(self, matrix: np.ndarray) -> "Outlines":
        """All points transformed by a 3x3 matrix."""
        return replace(self, points_xy=project(matrix, self.points_xy))

    def clipped(self, rectangle_xyxy: np.ndarray) -> "Outlines":
        """Every ring clipped to a rectangle, edge by edge (Sutherland and Hodgman)."""
        points, rings = self.points_xy, self.ring_of_point
        x0, y0, x1, y1 = rectangle_xyxy
        for axis, bound, sign in ((0, x0, 1), (1, y0, 1), (0, x1, -1), (1, y1, -1)):
            distance = sign * (points[:, axis] - bound)
            inside = distance >= 0
            if inside.all():
                continue
            next_point = _next_in_ring(rings)
            crossing = np.flatnonzero(inside != inside[next_point])
            crossing_end = next_point[crossing]
            step = distance[crossing] / (distance[crossing] - distance[crossing_end])
            edge_points = np.empty((len(points), 2, 2))  # each point, and where its edge crosses the bound
            edge_points[:, 0] = points
            edge_points[crossing, 1] = points[crossing] + step[:, None] * (points[crossing_end] - points[crossing])
            edge_points[crossing, 1, axis] = bound
            keep = np.zeros((len(points), 2), bool)
            keep[:, 0], keep[crossing, 1] = inside, True
            points, rings = edge_points[keep], np.repeat(rings, 2)[keep.ravel()]
        if points is self.points_xy:
            return self
        keep = np.bincount(rings, minlength=len(self.object_of_ring))[rings] > 2  # fewer have no area
        return replace(self, points_xy=points[keep], ring_of_point=rings[keep])

    def boxes_xyxy(self, default_xyxy: np.ndarray) -> np.ndarray:
        """The bounding box of each object's points; `default_xyxy`, (n, 4), where it has none."""
        boxes = np.array(default_xyxy, float)
        if len(self.points_xy):
            objects = self.object_of_ring[self.ring_of_point]
            starts = _run_starts(objects)
            boxes[objects[starts], :2] = np.minimum.reduceat(self.points_xy, starts)
            boxes[objects[starts], 2:] = np.maximum.reduceat(self.points_xy, starts)
        return boxes


def _repeat_indices(counts: list[int]) -> np.ndarray:
    """Index i repeated `counts[i]` times, for every i."""
    return np.repeat(np.arange(len(counts)), np.array(counts, int))


def _run_starts(owners: np.ndarray) -> np.ndarray:
    """Start of each run of equal owners."""
    changes = np.ones(len(owners), bool)
    np.not_equal(owners[1:], owners[:-1], out=changes[1:])
    return changes.nonzero()[0]


def _next_in_ring(rings: np.ndarray) -> np.ndarray:
    """Index of the next point of the same ring, cyclic."""
    next_point = np.arange(1, len(rings) + 1)
    starts = _run_starts(rings)
    next_point[np.append(starts[1:], len(rings)) - 1] = starts
    return next_point
