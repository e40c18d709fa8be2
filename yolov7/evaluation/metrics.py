"""Detections and ground truth → COCO average precision, curves per class, confusion matrix.

hotcoco computes what pycocotools computes, bit for bit, about a hundred times faster.
Shape letters: I images · N true objects · D detections · C classes · T IoU thresholds · R recall levels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from hotcoco import COCO, COCOeval
from numpy.typing import NDArray

from .operating_point import OperatingCurves

#: The operating point of the confusion matrix, which counts any number of detections per image.
CONFUSION_CONFIDENCE = 0.25
CONFUSION_IOU = 0.45
UNLIMITED = 1_000_000

# Positions in hotcoco's arrays: area ranges, detections per image, IoU thresholds 0.50:0.05:0.95.
ALL, SMALL, MEDIUM, LARGE = range(4)
TOP_1, TOP_10, TOP_100 = range(3)
IOU_50, IOU_75 = 0, 5

#: Columns of an evaluator's state: (dtype, shape of one entry). One entry per image, true object, or detection.
IMAGE_COLUMNS = {
    "image_ids": (np.int64, ()),
    "sizes_hw": (np.int32, (2,)),
    "num_truth": (np.int64, ()),
    "num_detections": (np.int64, ()),
}
TRUTH_COLUMNS = {
    "truth_boxes_xyxy": (np.float32, (4,)),
    "truth_labels": (np.int32, ()),
    "truth_iscrowd": (np.bool_, ()),
    "truth_area": (np.float32, ()),
}
DETECTION_COLUMNS = {"detections": (np.float32, (6,))}
COLUMNS = IMAGE_COLUMNS | TRUTH_COLUMNS | DETECTION_COLUMNS

ARRAY_FIELDS = {"pr_curves", "operating", "confusion"}

State = dict[str, NDArray]


@dataclass(frozen=True)
class ClassMetrics:
    """One class. Precision, recall and confidence are those of the best F1 at IoU 0.5; None is undefined."""

    ap: float | None
    ap50: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    confidence: float | None
    num_truth: int


class PrecisionRecall(NamedTuple):
    """Interpolated curves at IoU 0.5: recall (R,), precision (C, R); the row of a class without objects is NaN."""

    recall: NDArray[np.float64]
    precision: NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """COCO's twelve metrics and their detail; None where a metric is undefined for lack of objects.

    ``confusion`` is (C+1, C+1): true class in rows, predicted class in columns, background last, counted
    at confidence 0.25 and IoU 0.45, without crowds.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    num_images: int
    num_objects: int
    num_detections: int
    per_class: dict[str, ClassMetrics]
    pr_curves: PrecisionRecall = field(repr=False, compare=False)
    operating: OperatingCurves = field(repr=False, compare=False)
    confusion: NDArray[np.int64] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON: the metrics under ``overall``, each class under ``per_class``."""
        overall = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ARRAY_FIELDS | {"per_class"}}
        return {"overall": overall, "per_class": {name: asdict(c) for name, c in self.per_class.items()}}


class CocoEvaluator:
    """Collects truth and detections image by image, on any number of ranks, and scores them together."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"class_names: {self.class_names} holds a name twice; every class needs its own")
        self._states: list[State] = []

    def add(
        self,
        image_id: int,
        size_hw: tuple[int, int],
        truth_boxes_xyxy: Any,
        truth_labels: Any,
        truth_iscrowd: Any,
        truth_area: Any,
        detections: Any,
    ) -> None:
        """One image: truth (N, 4), (N,), (N,), (N,) and detections (D, 6) x1, y1, x2, y2, score, class.

        All in pixels of the original image, as arrays or tensors on any device. An image that is added
        twice (as distributed samplers pad) counts once.
        """
        columns = {
            "image_ids": image_id,
            "sizes_hw": size_hw,
            "num_truth": len(truth_labels),
            "num_detections": len(detections),
            "truth_boxes_xyxy": truth_boxes_xyxy,
            "truth_labels": truth_labels,
            "truth_iscrowd": truth_iscrowd,
            "truth_area": truth_area,
            "detections": detections,
        }
        state = {
            name: _array(columns[name]).astype(dtype).reshape(-1, *shape) for name, (dtype, shape) in COLUMNS.items()
        }
        lengths = {name: len(state[name]) for name in TRUTH_COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"image {image_id}: {lengths} do not fit; every object needs one entry in each")
        labels = np.concatenate((state["truth_labels"], state["detections"][:, 5]))
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            found = f"{labels.min():.0f} to {labels.max():.0f}"
            raise ValueError(f"image {image_id}: classes {found}; expected 0 to {len(self.class_names) - 1}")
        self._states.append(state)

    def state(self) -> State:
        """All that was added, as a few flat arrays (see COLUMNS): cheap to gather from other ranks."""
        if len(self._states) != 1:
            empty = {name: np.zeros((0, *shape), dtype) for name, (dtype, shape) in COLUMNS.items()}
            parts = [empty, *self._states]
            self._states = [{name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}]
        return self._states[0]

    @classmethod
    def merged(cls, class_names: Sequence[str], states: Iterable[State]) -> "CocoEvaluator":
        """An evaluator with the states of all ranks."""
        evaluator = cls(class_names)
        evaluator._states = list(states)
        return evaluator

    def compute(self) -> Metrics:
        """Score everything added so far, independent of the order of images and their distribution over ranks."""
        state = _deduplicate(self.state())
        evaluation = _evaluate(state, self.class_names)
        precision, recall, scores = (evaluation.eval[name] for name in ("precision", "recall", "scores"))
        recall_levels = np.array(evaluation.params.rec_thrs)
        is_object = ~state["truth_iscrowd"]
        num_truth = np.bincount(state["truth_labels"][is_object], minlength=len(self.class_names)).tolist()
        class_precision, class_scores = precision[:, :, :, ALL, TOP_100], scores[IOU_50, :, :, ALL, TOP_100]
        per_class = {
            name: _class_metrics(class_precision[:, :, c], class_scores[:, c], recall_levels, num_truth[c])
            for c, name in enumerate(self.class_names)
        }
        curves = class_precision[IOU_50].T
        confusion = evaluation.confusion_matrix(CONFUSION_IOU, UNLIMITED, CONFUSION_CONFIDENCE)["matrix"]
        return Metrics(
            ap=_mean(precision[:, :, :, ALL, TOP_100]),
            ap50=_mean(precision[IOU_50, :, :, ALL, TOP_100]),
            ap75=_mean(precision[IOU_75, :, :, ALL, TOP_100]),
            ap_small=_mean(precision[:, :, :, SMALL, TOP_100]),
            ap_medium=_mean(precision[:, :, :, MEDIUM, TOP_100]),
            ap_large=_mean(precision[:, :, :, LARGE, TOP_100]),
            ar1=_mean(recall[:, :, ALL, TOP_1]),
            ar10=_mean(recall[:, :, ALL, TOP_10]),
            ar100=_mean(recall[:, :, ALL, TOP_100]),
            ar_small=_mean(recall[:, :, SMALL, TOP_100]),
            ar_medium=_mean(recall[:, :, MEDIUM, TOP_100]),
            ar_large=_mean(recall[:, :, LARGE, TOP_100]),
            num_images=len(state["image_ids"]),
            num_objects=int(is_object.sum()),
            num_detections=len(state["detections"]),
            per_class=per_class,
            pr_curves=PrecisionRecall(recall_levels, np.where(curves > -1, curves, np.nan)),
            operating=OperatingCurves.of(recall_levels, class_scores.T, np.array(num_truth), state["detections"]),
            confusion=confusion.astype(np.int64),
        )


def _array(values: Any) -> NDArray:
    """A tensor on any device, an array or a list as a numpy array; bfloat16, which numpy lacks, as float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _deduplicate(state: State) -> State:
    """The state sorted by image id, with only the first entry of each image."""
    image_ids, images = np.unique(state["image_ids"], return_index=True)
    position = np.full(len(state["image_ids"]), -1)
    position[images] = np.arange(len(image_ids))
    deduplicated = {name: state[name][images] for name in IMAGE_COLUMNS}
    for count, columns in (("num_truth", TRUTH_COLUMNS), ("num_detections", DETECTION_COLUMNS)):
        position_of_row = np.repeat(position, state[count])
        rows = np.argsort(position_of_row, kind="stable")[(position_of_row < 0).sum() :]
        deduplicated |= {name: state[name][rows] for name in columns}
    return deduplicated


def _evaluate(state: State, class_names: Sequence[str]) -> COCOeval:
    """hotcoco's evaluation of a sorted state. Images and classes are identified by position, so any id may be used."""
    images = [{"id": i, "height": int(h), "width": int(w)} for i, (h, w) in enumerate(state["sizes_hw"])]
    categories = [{"id": c, "name": name} for c, name in enumerate(class_names)]
    positions = np.arange(len(images))
    truth = COCO.from_arrays(
        images,
        categories,
        np.repeat(positions, state["num_truth"]),
        state["truth_labels"].astype(np.int64),
        _xyxy_to_xywh(state["truth_boxes_xyxy"]),
        area=state["truth_area"].astype(np.float64),
        iscrowd=state["truth_iscrowd"],
    )
    detections = state["detections"].astype(np.float64)
    image_positions = np.repeat(positions, state["num_detections"])[:, None]
    results = np.concatenate((image_positions, _xyxy_to_xywh(detections[:, :4]), detections[:, 4:]), axis=1)
    evaluation = COCOeval(truth, truth.load_res(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _xyxy_to_xywh(boxes_xyxy: NDArray) -> NDArray[np.float64]:
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


def _mean(values: NDArray) -> float | None:
    """Mean over defined values (-1 marks undefined ones), as in pycocotools' summary."""
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else None


def _class_metrics(precision: NDArray, scores: NDArray, recall: NDArray, num_truth: int) -> ClassMetrics:
    """Metrics of one class from precision (T, R), scores (R,) at IoU 0.5 and the recall levels (R,)."""
    if (precision < 0).any():
        return ClassMetrics(None, None, None, None, None, None, num_truth)
    precision50 = precision[IOU_50]
    f1 = 2 * precision50 * recall / np.maximum(precision50 + recall, np.finfo(np.float64).tiny)
    best = int(f1.argmax())
    found_any = bool(f1[best] > 0)
    return ClassMetrics(
        ap=_mean(precision),
        ap50=_mean(precision50),
        precision=float(precision50[best]),
        recall=float(recall[best]) if found_any else 0.0,
        f1=float(f1[best]),
        confidence=float(scores[best]) if found_any else None,
        num_truth=num_truth,
    )
