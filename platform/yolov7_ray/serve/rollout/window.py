"""What one version of a model did in one step of a roll-out: counts that add up over gateways."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

GROWTH = 1.05
"""Each bin of latencies is so much wider than the one before: percentiles are exact to 5 %."""
SCORE_BINS = 10
PSEUDO_COUNT = 0.5
"""Added to each bin of a distribution, as a bin that is empty in one of two has no logarithm."""


@dataclass
class Window:
    """Counts of answers."""

    requests: int = 0
    errors: int = 0
    """Requests that it failed to answer."""
    empty: int = 0
    """Answers without an object."""
    latencies: Counter[int] = field(default_factory=Counter)
    """Answers by bin of their milliseconds."""
    scores: Counter[int] = field(default_factory=Counter)
    """Objects by tenth of their score."""
    classes: Counter[str] = field(default_factory=Counter)
    """Objects by name of their class."""
    pairs: int = 0
    """Images that a shadow and the stable version both looked at."""
    agreed: float = 0.0
    """Sum of their agreement on each."""

    def add_error(self) -> None:
        """Count a request without an answer."""
        self.requests += 1
        self.errors += 1

    def add(self, detections: np.ndarray, classes: tuple[str, ...], milliseconds: float) -> None:
        """Count an answer: detections (n, 6) with score and class index last."""
        self.requests += 1
        self.empty += not len(detections)
        self.latencies[math.floor(math.log(max(milliseconds, 1e-3), GROWTH))] += 1
        for score, label in detections[:, 4:6].tolist():
            self.scores[min(SCORE_BINS - 1, int(score * SCORE_BINS))] += 1
            self.classes[classes[int(label)]] += 1

    @property
    def agreement(self) -> float:
        """Mean agreement over the pairs; 1 without any."""
        return self.agreed / self.pairs if self.pairs else 1.0

    def __add__(self, other: "Window") -> "Window":
        return Window(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    @property
    def answers(self) -> int:
        """Requests that were answered."""
        return self.requests - self.errors

    @property
    def error_share(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def empty_share(self) -> float:
        return self.empty / self.answers if self.answers else 0.0

    @property
    def p99_ms(self) -> float:
        """What 99 % of the answers did not exceed; 0 without answers."""
        left = self.answers - math.ceil(0.99 * self.answers)
        for number in sorted(self.latencies, reverse=True):
            left -= self.latencies[number]
            if left < 0:
                return GROWTH ** (number + 1)
        return 0.0

    def slower_than(self, milliseconds: float) -> int:
        """Answers that took longer."""
        return sum(count for number, count in self.latencies.items() if GROWTH ** number >= milliseconds)


def agreement(first: np.ndarray, second: np.ndarray, names: tuple[tuple[str, ...], tuple[str, ...]]) -> float:
    """Share of the objects (n, 6) and (m, 6) of one image that are in both: of one class, IoU 0.5 or more.

    F1: 2 matches / (n + m), each object matched once, best score first; 1 where there is none. `names`: of the classes
    of each.
    """
    left, matches = list(range(len(second))), 0
    for row in first:
        same = [number for number in left if names[0][int(row[5])] == names[1][int(second[number, 5])]]
        best = max(same, key=lambda number: _overlap(row, second[number]), default=None)
        if best is not None and _overlap(row, second[best]) >= 0.5:
            left.remove(best)
            matches += 1
    return 2 * matches / (len(first) + len(second)) if len(first) + len(second) else 1.0


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2, …)."""
    sides = np.minimum(first[2:4], second[2:4]) - np.maximum(first[:2], second[:2])
    common = float(sides.clip(0).prod())
    areas = sum(float((box[2:4] - box[:2]).prod()) for box in (first, second))
    return common / (areas - common) if areas > common else 0.0


def stability_index(expected: Mapping, actual: Mapping) -> float:
    """Population stability index of two distributions: sum of (a - e) ln(a / e) over their bins.

    0 where they are the same; by convention below 0.1 is stable and above 0.25 is a change.
    """
    bins = expected.keys() | actual.keys()
    totals = [sum(each.values()) + PSEUDO_COUNT * len(bins) for each in (expected, actual)]
    shares = ([(each.get(name, 0) + PSEUDO_COUNT) / total for each, total in zip((expected, actual), totals)]
              for name in bins)
    return sum((a - e) * math.log(a / e) for e, a in shares)
