"""What one version of a model did in one step of a roll-out: counts that add up over gateways."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from yolov7.evaluation.mistakes import RIGHT, judge

from ..stability import stability_index

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
    if not len(first) + len(second):
        return 1.0
    label_of = {name: label for label, name in enumerate(names[0])}
    labels = np.array([label_of.get(names[1][int(label)], -1) for label in second[:, 5]])
    _, verdicts, _ = judge(second[:, :4], labels, np.zeros(len(second), bool), first)
    return 2 * verdicts.count(RIGHT) / (len(first) + len(second))


def shift_index(expected: Mapping, actual: Mapping) -> float:
    """`stability_index` of two distributions, each of counts that are a sample."""
    bins = list(expected.keys() | actual.keys())
    counts = [np.array([each.get(name, 0) for name in bins]) + PSEUDO_COUNT for each in (expected, actual)]
    return stability_index(*(each / each.sum() for each in counts))
