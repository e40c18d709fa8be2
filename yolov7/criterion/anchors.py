"""Anchors: how well a set of box shapes fits a dataset, and how to find a better set.

Sizes are (n, 2) and anchors (a, 2): width and height in pixels of the training image.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

RATIO_THRESHOLD = 4.0
MAX_SIZES = 5_000
"""Maximum number of sizes in the search: recall is accurate to 1 %, and any dataset takes seconds."""

RECALL_WEIGHT = 0.1
"""Weight of recall relative to fitness in the evolution."""


def shape_similarity(sizes_px: ArrayLike, anchors_px: ArrayLike) -> NDArray[np.float64]:
    """How much each anchor resembles each size: (n, a) in [0, 1].

    The worse of the two sides, as smaller over larger; the assigner takes an anchor where this
    exceeds 1 / ratio_threshold.
    """
    with np.errstate(divide="ignore"):
        sizes = np.log(np.asarray(sizes_px, np.float64).reshape(-1, 1, 2))
        anchors = np.log(np.asarray(anchors_px, np.float64).reshape(1, -1, 2))
    distance = np.abs(sizes - anchors)
    return np.exp(-np.maximum(distance[..., 0], distance[..., 1]))


def best_possible_recall(
    sizes_px: ArrayLike, anchors_px: ArrayLike, ratio_threshold: float = RATIO_THRESHOLD
) -> float:
    """Share of the sizes that some anchor fits: the upper bound of recall after training. 0 without sizes."""
    best = shape_similarity(sizes_px, anchors_px).max(axis=1)
    return float((best > 1 / ratio_threshold).mean()) if len(best) else 0.0


def anchor_fitness(
    sizes_px: ArrayLike, anchors_px: ArrayLike, ratio_threshold: float = RATIO_THRESHOLD
) -> float:
    """Mean similarity of each size to its best anchor, 0 where none fits. 0 without sizes."""
    best = shape_similarity(sizes_px, anchors_px).max(axis=1)
    return float((best * (best > 1 / ratio_threshold)).mean()) if len(best) else 0.0


def fit_anchors(
    sizes_px: ArrayLike,
    num_levels: int,
    anchors_per_level: int = 3,
    ratio_threshold: float = RATIO_THRESHOLD,
    generations: int = 1000,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Anchors (num_levels, anchors_per_level, 2) for these sizes, ordered by area: the smallest for
    the finest level. ValueError with fewer sizes than anchors."""
    num_anchors = num_levels * anchors_per_level
    anchors = kmeans_anchors(sizes_px, num_anchors, ratio_threshold, generations, seed)
    return anchors.reshape(num_levels, anchors_per_level, 2)


def kmeans_anchors(
    sizes_px: ArrayLike,
    num_anchors: int = 9,
    ratio_threshold: float = RATIO_THRESHOLD,
    generations: int = 1000,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Anchors (num_anchors, 2) for these sizes, ordered by area: k-means, then evolution.

    The same arguments give the same anchors. ValueError with fewer sizes than anchors.
    """
    sizes = np.asarray(sizes_px, np.float64).reshape(-1, 2)
    sizes = sizes[(sizes > 0).all(axis=1)]
    if len(sizes) < num_anchors:
        raise ValueError(
            f"kmeans_anchors: {len(sizes)} boxes of positive size arrived; "
            f"{num_anchors} anchors need at least as many"
        )
    rng = np.random.default_rng(seed)
    if len(sizes) > MAX_SIZES:
        sizes = sizes[rng.choice(len(sizes), MAX_SIZES, replace=False)]
    anchors = np.exp(_kmeans(np.log(sizes), num_anchors, rng))
    anchors = _evolve(sizes, anchors, ratio_threshold, generations, rng)
    return anchors[anchors.prod(axis=1).argsort()].astype(np.float32)


def _kmeans(
    points: NDArray[np.float64], num_centres: int, rng: np.random.Generator, iterations: int = 30
) -> NDArray[np.float64]:
    """Centres (k, 2) of `points` (n, 2), seeded far apart (k-means++).

    On logarithms of sizes, where distance is a ratio, which is what the assigner compares.
    """
    centres = points[[rng.integers(len(points))]]
    while len(centres) < num_centres:
        distance = _squared_distance(points, centres).min(axis=1)
        total = distance.sum()
        weight = distance / total if total > 0 else None
        centres = np.vstack((centres, points[rng.choice(len(points), p=weight)]))
    for _ in range(iterations):
        nearest = _squared_distance(points, centres).argmin(axis=1)
        count = np.bincount(nearest, minlength=num_centres)
        sums = [np.bincount(nearest, points[:, axis], num_centres) for axis in (0, 1)]
        means = np.stack(sums, axis=1) / np.maximum(count, 1)[:, None]
        centres = np.where(count[:, None] > 0, means, centres)
    return centres


def _squared_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between every point of (n, 2) and every point of (m, 2): (n, m)."""
    return np.square(a[:, None] - b[None]).sum(axis=2)


def _evolve(
    sizes_px: NDArray[np.float64],
    anchors_px: NDArray[np.float64],
    ratio_threshold: float,
    generations: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Evolutionary search: mutate a few sides slightly, keep the fitter anchors, with decreasing step size.

    The score includes recall, because a size without an anchor is never learnt.
    """

    def score(anchors: NDArray[np.float64]) -> float:
        best = shape_similarity(sizes_px, anchors).max(axis=1)
        fits = best > 1 / ratio_threshold
        return float((best * fits).mean() + RECALL_WEIGHT * fits.mean())

    highest = score(anchors_px)
    for scale in np.geomspace(0.2, 0.01, generations):
        chosen = rng.random(anchors_px.shape) < rng.uniform(0.05, 0.5)
        mutant = anchors_px * np.exp(chosen * scale * rng.standard_normal(anchors_px.shape))
        mutant_score = score(mutant)
        if mutant_score > highest:
            highest, anchors_px = mutant_score, mutant
    return anchors_px
