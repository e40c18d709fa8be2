"""How far what a model detects here is from what it detected on its validation split.

C classes · S intervals of score
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from prometheus_client.core import GaugeMetricFamily

from ...detect.options import MAX_DETECTIONS, Options
from ...registry.validation import LEAST_SCORE, NUM_SCORES, Validation, count, load_validation
from ..served import Detected, ServedInfo
from ..stability import stability_index

WINDOW = 1000
"""Images that are compared, at most: these and half as many before them go out together."""
MIN_IMAGES = 100
"""Fewer tell nothing."""
LEAST_SHARE = 1e-4
MOST_CLASSES = 20
"""The most frequent ones; the others count as one, or each rare one would look like a change."""


def drift_index(expected: np.ndarray, actual: np.ndarray) -> float:
    """`stability_index` of counts over B intervals, of which the expected ones are known.

    No share is zero: those that are expected are `LEAST_SHARE` at least, and to the counts that are found are added B / 2
    as they are expected, so that few images look like no change rather than like a large one.
    """
    share = np.maximum(expected / max(expected.sum(), 1), LEAST_SHARE)
    share /= share.sum()
    prior = len(expected) / 2
    return stability_index(share, (actual + prior * share) / (actual.sum() + prior))


@dataclass
class _Window:
    """What one version detected in the last images."""

    info: ServedInfo
    blocks: list[tuple[int, np.ndarray]] = field(default_factory=list)
    """Images and (C, S) counts; the newest last."""
    validation: Validation | None = None

    def add(self, counts: np.ndarray) -> None:
        if not self.blocks or self.blocks[-1][0] >= WINDOW // 2:
            self.blocks = [*self.blocks[-1:], (0, np.zeros_like(counts))]
        num_images, total = self.blocks[-1]
        self.blocks[-1] = (num_images + 1, total + counts)

    def load(self) -> None:
        """Find what it detected on its validation split, if that is known."""
        if self.info.registry is not None:
            found = load_validation(self.info.registry, self.info.ref)
            if found is not None and len(found.counts) == len(self.info.classes):
                self.validation = found


class Drift:
    """An observer of served models, and a collector of Prometheus; only requests with the model's own threshold, or a
    lower one, are compared."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._windows: dict[tuple[str, str], _Window] = {}
        self._lock = threading.Lock()

    def detected(self, image: bytes | np.ndarray, options: Options, found: Detected, seconds: float) -> None:
        """Count an image's detections."""
        info = found.info
        if options.confidence > max(info.confidence, LEAST_SCORE) or options.max_detections < MAX_DETECTIONS:
            return
        with self._lock:
            window = self._windows.get((info.name, info.ref))
            if window is None:
                window = self._windows[info.name, info.ref] = _Window(info)
                threading.Thread(target=window.load, name="validation", daemon=True).start()
            window.add(count(found.detections, len(info.classes)))

    def failed(self, info: ServedInfo, status: int, seconds: float) -> None:
        """Without an answer there is nothing to compare."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The index of scores and of classes, and the images that it is of."""
        labels = ("gateway", "model", "version")
        index = GaugeMetricFamily("yolov7_drift_index", "Population stability index of the last images' detections against "
                                  "those of the validation split: of scores, of classes", labels=(*labels, "of"))
        images = GaugeMetricFamily("yolov7_drift_images", "Images that the drift index is of", labels=labels)
        with self._lock:
            windows = [(window, list(window.blocks)) for window in self._windows.values()]
        for window, blocks in windows:
            key = (self._gateway, window.info.name, window.info.version)
            num_images = sum(block[0] for block in blocks)
            images.add_metric(key, num_images)
            if window.validation is not None and num_images >= MIN_IMAGES:
                for name, value in compared(window.validation, sum(block[1] for block in blocks),
                                            window.info.confidence).items():
                    index.add_metric((*key, name), value)
        yield index
        yield images


def compared(validation: Validation, counts: np.ndarray, confidence: float) -> dict[str, float]:
    """Index of scores and of classes, of counts (C, S), both with scores from the first interval at `confidence` on."""
    first = math.ceil(max(confidence, LEAST_SCORE) * NUM_SCORES - 1e-6)
    expected, actual = validation.counts[:, first:], counts[:, first:]
    often = np.argsort(-expected.sum(axis=1), kind="stable")

    def classes(counts: np.ndarray) -> np.ndarray:
        by_class = counts.sum(axis=1)[often]
        return np.append(by_class[:MOST_CLASSES], by_class[MOST_CLASSES:].sum()) if len(often) > MOST_CLASSES else by_class

    return {"scores": drift_index(expected.sum(axis=0), actual.sum(axis=0)),
            "classes": drift_index(classes(expected), classes(actual))}
