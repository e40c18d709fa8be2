"""Precision, recall and F1 over the confidence from which on a detection counts.

C classes · K confidences · R recall levels · D detections
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCES = np.linspace(0, 1, 101)
ROUNDING = 1e-6
"""Scores are float32."""
USUAL_CONFIDENCE = 0.25
"""Where nothing is detected, and so none is better than another."""


@dataclass(frozen=True, eq=False)
class OperatingCurves:
    """(C, K) at IoU 0.5, each over `CONFIDENCES`; rows of classes without objects are NaN."""

    precision: NDArray[np.float64]
    """NaN where nothing is detected."""
    recall: NDArray[np.float64]

    @classmethod
    def of(cls, recall_levels: NDArray, scores: NDArray, num_truth: NDArray, detections: NDArray) -> "OperatingCurves":
        """From the scores (C, R) at which each recall level (R,) is reached, 0 where it is not, the number of objects
        of each class (C,), and all detections (D, 6). Up to 100 objects of a class it is exact, beyond that to 1 %.

        Detections within crowds count as wrong here.
        """
        shape = (len(num_truth), len(CONFIDENCES))
        precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
        for label in np.flatnonzero(num_truth):
            reached = np.where(scores[label] > 0, scores[label], -1.0)[None] >= CONFIDENCES[:, None] - ROUNDING
            level = np.where(reached.any(axis=1), recall_levels[reached.sum(axis=1) - 1], 0.0)
            right = np.maximum(np.ceil(level * num_truth[label] - 1e-6), reached.any(axis=1))
            found = np.sort(detections[detections[:, 5] == label, 4].astype(np.float64))
            num_found = len(found) - np.searchsorted(found, CONFIDENCES - ROUNDING)
            recall[label] = right / num_truth[label]
            precision[label] = np.where(num_found > 0, right / np.maximum(num_found, 1), np.nan)
        return cls(np.minimum(precision, 1.0), recall)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(C, K)."""
        precision = np.where(np.isnan(self.precision) & ~np.isnan(self.recall), 0.0, self.precision)
        return 2 * precision * self.recall / np.maximum(precision + self.recall, 1e-12)

    @property
    def best(self) -> int:
        """Index of the confidence at which the mean F1 of the classes with objects is highest, of equal ones the middle."""
        known = self.f1[~np.isnan(self.f1).any(axis=1)]
        mean = known.mean(axis=0) if len(known) else np.zeros(len(CONFIDENCES))
        if mean.max() <= 0:
            return int(np.abs(CONFIDENCES - USUAL_CONFIDENCE).argmin())
        first = int(mean.argmax())
        equal = np.isclose(mean[first:], mean[first], rtol=0, atol=1e-12)
        last = first + (len(equal) if equal.all() else int(equal.argmin())) - 1
        return (first + last) // 2

    @property
    def best_confidence(self) -> float:
        """The confidence at `best`."""
        return float(CONFIDENCES[self.best])

    def at_best(self) -> dict[str, float | None]:
        """Mean precision, recall and F1 of the classes with objects at the best confidence, and that; None: undefined."""
        means = {name: values[:, self.best] for name, values in
                 (("precision", self.precision), ("recall", self.recall), ("f1", self.f1))}
        return {name: float(np.nanmean(values)) if not np.isnan(values).all() else None
                for name, values in means.items()} | {"confidence": self.best_confidence}
