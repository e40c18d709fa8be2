"""What is wrong with each detection and each missed object of an image: the error types of TIDE (arXiv:2008.08115).

N true objects · D detections
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
MISTAKES = ("missed", "false", "confused", "badly placed", "duplicate", "confused and badly placed")
"""An object without any detection; a detection on background, of a wrong class, with too little overlap, of an object
that has a better one, and with both a wrong class and too little overlap."""
RIGHT, FOUND, IGNORED = "right", "found", "ignored"
"""A detection that fits, the object that it found, and what does not count: crowds and what lies in them, and missed
objects for which a detection of the wrong class or place stands already."""


@dataclass(frozen=True, eq=False)
class JudgedImage:
    """One image, its objects and the detections above a confidence, each with a verdict."""

    position: int
    """In the evaluator's state."""
    truth_boxes_xyxy: NDArray
    truth_labels: NDArray
    truth_verdicts: Sequence[str]
    detections: NDArray
    """(D, 6): x1, y1, x2, y2 in pixels of the image, score, class; best first."""
    verdicts: Sequence[str]
    partners: Sequence[int]
    """Of each detection: the object that its verdict is about, or -1."""

    @property
    def counts(self) -> Counter[str]:
        """Mistakes by type."""
        return Counter(verdict for verdict in (*self.verdicts, *self.truth_verdicts) if verdict in MISTAKES)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall in this image; 1 where nothing is wrong."""
        right = sum(verdict == RIGHT for verdict in self.verdicts)
        wrong = sum(verdict in MISTAKES for verdict in self.verdicts)
        not_found = sum(verdict not in (FOUND, IGNORED) for verdict in self.truth_verdicts) + sum(
            verdict in ("confused", "badly placed") for verdict in self.verdicts)
        return 2 * right / (2 * right + wrong + not_found) if wrong or not_found else 1.0


def judged_images(state: dict[str, NDArray], confidence: float) -> Iterator[JudgedImage]:
    """Every image of a state of `CocoEvaluator`, with its detections of at least this confidence."""
    truth_ends, detection_ends = np.cumsum(state["num_truth"]), np.cumsum(state["num_detections"])
    for position, (truth_end, detection_end) in enumerate(zip(truth_ends.tolist(), detection_ends.tolist())):
        truth = slice(truth_end - int(state["num_truth"][position]), truth_end)
        found = state["detections"][detection_end - int(state["num_detections"][position]):detection_end]
        found = found[found[:, 4] >= confidence]
        found = found[np.argsort(-found[:, 4], kind="stable")]
        boxes, labels = state["truth_boxes_xyxy"][truth], state["truth_labels"][truth]
        truth_verdicts, verdicts, partners = judge(boxes, labels, state["truth_iscrowd"][truth], found)
        yield JudgedImage(position, boxes, labels, truth_verdicts, found, verdicts, partners)


def judge(truth_boxes_xyxy: NDArray, truth_labels: NDArray, truth_iscrowd: NDArray,
          detections: NDArray) -> tuple[list[str], list[str], list[int]]:
    """Verdicts on objects (N,) and on detections (D, 6), which are sorted by score, and each detection's object or -1.

    A detection takes the object of its class that overlaps it most, by IoU 0.5 or more, and that none before it took.
    """
    crowd = np.asarray(truth_iscrowd, bool)
    truth_verdicts = [IGNORED if is_crowd else "missed" for is_crowd in crowd]
    verdicts, partners = ["false"] * len(detections), [-1] * len(detections)
    if not len(truth_labels) or not len(detections):
        return truth_verdicts, verdicts, partners
    overlaps = intersections(detections[:, :4], truth_boxes_xyxy)
    areas = box_areas(detections[:, :4])[:, None]
    unions = areas + box_areas(truth_boxes_xyxy) - overlaps
    iou = np.where(crowd, 0.0, overlaps / np.maximum(unions, 1e-9))
    inside = np.where(crowd, overlaps / np.maximum(areas, 1e-9), 0.0)
    same = detections[:, 5:6].astype(int) == np.asarray(truth_labels)
    taken = np.zeros(len(truth_labels), bool)
    for number in range(len(detections)):  # the best first
        free = np.where(same[number] & ~taken, iou[number], -1.0)
        if free.max() >= FOREGROUND_IOU:
            partners[number] = int(free.argmax())
            taken[partners[number]], verdicts[number] = True, RIGHT
            truth_verdicts[partners[number]] = FOUND
    for number in (number for number, verdict in enumerate(verdicts) if verdict != RIGHT):
        verdicts[number], partners[number] = _mistake(iou[number], inside[number], same[number], taken)
        partner = partners[number]
        if verdicts[number] in ("confused", "badly placed") and truth_verdicts[partner] == "missed":
            truth_verdicts[partner] = IGNORED
    return truth_verdicts, verdicts, partners


def _mistake(iou: NDArray, inside: NDArray, same: NDArray, taken: NDArray) -> tuple[str, int]:
    """What is wrong with a detection that found nothing, and the object that it is about, or -1."""
    if (inside * same).max() >= FOREGROUND_IOU:
        return IGNORED, -1
    own, other, twice = (np.where(mask, iou, 0.0) for mask in (same, ~same, same & taken))
    if BACKGROUND_IOU <= own.max() < FOREGROUND_IOU:
        return "badly placed", int(own.argmax())
    if other.max() >= FOREGROUND_IOU:
        return "confused", int(other.argmax())
    if twice.max() >= FOREGROUND_IOU:
        return "duplicate", int(twice.argmax())
    if iou.max() < BACKGROUND_IOU:
        return "false", -1
    return "confused and badly placed", int(iou.argmax())


def intersections(boxes_xyxy: NDArray, others_xyxy: NDArray) -> NDArray:
    """(D, N) areas that boxes (D, 4) and (N, 4) share."""
    low = np.maximum(boxes_xyxy[:, None, :2], others_xyxy[None, :, :2])
    high = np.minimum(boxes_xyxy[:, None, 2:], others_xyxy[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


def box_areas(boxes_xyxy: NDArray) -> NDArray:
    """(N,) areas of boxes (N, 4)."""
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
