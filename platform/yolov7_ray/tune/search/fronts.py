"""Pareto fronts and hypervolumes of points with several objectives.

N points · D objectives. `directions`: "max" or "min" for each objective; larger values of "min" are worse.
"""

from collections.abc import Sequence

import numpy as np

SIGN = {"max": 1.0, "min": -1.0}


def maximised(points: Sequence[Sequence[float]], directions: Sequence[str]) -> np.ndarray:
    """(N, D) float64 in which more is better in every column."""
    signs = np.array([SIGN[direction] for direction in directions])
    return np.asarray(points, np.float64).reshape(-1, len(signs)) * signs


def non_dominated(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Indices, ascending, of the points than which no other is better in one objective and as good in all.

    Equal points are all of the front. A point with NaN is never of it.
    """
    values = maximised(points, directions)
    known = ~np.isnan(values).any(1)
    as_good = (values[None] >= values[:, None]).all(2)  # [i, j]: j is as good as i in all
    better = (values[None] > values[:, None]).any(2)
    return np.flatnonzero(known & ~(as_good & better).any(1)).tolist()


def fronts(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[list[int]]:
    """All indices by front: those dominated by none, those dominated by the first front alone, and so on; NaN last."""
    values = np.asarray(points, np.float64).reshape(-1, len(directions))
    left, found = np.flatnonzero(~np.isnan(values).any(1)), []
    while len(left):
        front = left[non_dominated(values[left], directions)]
        found.append(front.tolist())
        left = np.setdiff1d(left, front)
    unknown = np.flatnonzero(np.isnan(values).any(1)).tolist()
    return found + [unknown] if unknown else found


def ranked(points: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """All indices, best first: front by front; within one by an epsilon-net, so that every beginning spreads over it.

    The net takes first the best of the first objective, then always the point farthest from those taken, objectives
    scaled to the range that the points have; ties go to the lower index.
    """
    values = maximised(points, directions)
    low, high = np.nanmin(values, 0, initial=np.inf), np.nanmax(values, 0, initial=-np.inf)
    scaled = (values - low) / np.where(high > low, high - low, 1)
    order = []
    for front in fronts(points, directions):
        members = np.array(front)
        if np.isnan(values[members]).any():
            order += front
            continue
        distance = np.full(len(members), np.inf)
        chosen = int(scaled[members, 0].argmax())
        for _ in members:
            order.append(int(members[chosen]))
            distance = np.minimum(distance, np.linalg.norm(scaled[members] - scaled[members[chosen]], axis=1))
            distance[chosen] = -1
            chosen = int(distance.argmax())
    return order


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float], directions: Sequence[str]) -> float:
    """Volume, in the product of the objectives' units, of what the points dominate and that is better than
    ``reference``; exact for any number of objectives, quick for up to three. Points with NaN do not count.
    """
    values = maximised(points, directions) - maximised([reference], directions)
    return _volume(values[(values > 0).all(1)])


def _volume(values: np.ndarray) -> float:
    """Volume of the union of the boxes from the origin to each of the positive ``values`` (N, D)."""
    if not len(values):
        return 0.0
    if values.shape[1] == 1:
        return float(values.max())
    values = values[np.argsort(-values[:, -1], kind="stable")]
    if values.shape[1] == 2:
        highest = np.maximum.accumulate(values[:, 0])
        return float(np.sum((values[:, 1] - np.append(values[1:, 1], 0)) * highest))
    depth = values[:, -1] - np.append(values[1:, -1], 0)
    return float(sum(thickness * _volume(values[:number + 1, :-1])
                     for number, thickness in enumerate(depth) if thickness > 0))
