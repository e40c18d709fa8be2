"""Checks of the object columns of a record batch: labels and boxes against image, image size and anchors.

n objects · B images of the batch
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from yolov7.criterion.anchors import RATIO_THRESHOLD, shape_similarity
from yolov7.images.tile import MAX_ASPECT_RATIO, MIN_SIDE_PX

from ..ingest.rows import TOLERANCE_PX
from .finding import Case, Findings

OBJECT_COLUMNS = ("boxes_xyxy", "labels", "iscrowd", "area", "polygons")


@dataclass(frozen=True, slots=True)
class DetectorShape:
    """Properties of the detector that objects are checked against."""

    num_classes: int
    image_size_px: int
    """Side of the square that the detector sees."""
    anchors_px: tuple[tuple[float, float], ...]
    """Width and height in pixels of that square, of all levels."""


@dataclass(slots=True)
class Statistics:
    """Counts of a part of a split; parts can be added."""

    num_images: int = 0
    num_objects: int = 0
    objects_per_class: list[int] = field(default_factory=list)
    num_measured: int = 0
    """Objects that are compared to the anchors."""
    num_fitting: int = 0
    """Those of them that some anchor fits."""

    def add(self, other: "Statistics") -> None:
        """Add the counts of another part."""
        per_class = np.zeros(max(len(self.objects_per_class), len(other.objects_per_class)), int)
        for counts in (self.objects_per_class, other.objects_per_class):
            per_class[:len(counts)] += np.asarray(counts, int)
        self.objects_per_class = per_class.tolist()
        for name in ("num_images", "num_objects", "num_measured", "num_fitting"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """All objects of a record batch, in order; every array has n rows."""

    image: np.ndarray
    """Row of the batch."""
    boxes_xyxy: np.ndarray
    """(n, 4) float64."""
    size_wh: np.ndarray
    """(n, 2) of the object's image, as recorded in the row."""
    labels: np.ndarray
    iscrowd: np.ndarray

    def select(self, keep: np.ndarray) -> "Objects":
        """The objects where `keep`, (n,) bool, is true."""
        return Objects(*(getattr(self, name)[keep] for name in self.__slots__))


def examine_objects(batch: pa.RecordBatch, split: str, first: int, detector_shape: DetectorShape,
                    findings: Findings) -> Statistics:
    """Examine a batch whose first row is sample `first` of the split."""
    lengths = np.stack([pc.list_value_length(batch.column(name)).to_numpy() for name in OBJECT_COLUMNS])
    even = (lengths == lengths[0]).all(axis=0)
    names = batch.column("file_name")

    def cases(rows: np.ndarray, details: Iterator[str], boxes: np.ndarray | None = None) -> Iterator[Case]:
        for number, (row, detail) in enumerate(zip(rows.tolist(), details)):
            box = None if boxes is None or not np.isfinite(boxes[number]).all() else tuple(boxes[number].tolist())
            yield Case(split, first + row, names[row].as_py(), detail, box)

    uneven, without_objects = np.flatnonzero(~even), np.flatnonzero(lengths[1] == 0)
    findings.add_all("uneven columns", split, len(uneven), cases(uneven, (
        ", ".join(f"{count} {name}" for name, count in zip(OBJECT_COLUMNS, lengths[:, row].tolist()))
        for row in uneven)))
    findings.add_all("image without objects", split, len(without_objects),
                     cases(without_objects, iter([""] * len(without_objects))))
    objects = _objects(batch, even)
    statistics = Statistics(batch.num_rows, int(lengths[1].sum()), _per_class(batch, detector_shape.num_classes))
    for kind, faulty, describe in _faults(objects, detector_shape):
        where = np.flatnonzero(faulty)
        findings.add_all(kind, split, len(where), cases(objects.image[where], map(describe, where),
                                                        objects.boxes_xyxy[where]))
    _measure(objects, detector_shape, statistics)
    return statistics


def objects_of(batch: pa.RecordBatch) -> Objects:
    """The objects of a batch; rows whose columns differ in length are left out."""
    lengths = np.stack([pc.list_value_length(batch.column(name)).to_numpy() for name in OBJECT_COLUMNS])
    return _objects(batch, (lengths == lengths[0]).all(axis=0))


def _objects(batch: pa.RecordBatch, even: np.ndarray) -> Objects:
    """Objects of the rows that have one entry per object in every column."""
    rows = np.flatnonzero(even)
    if len(rows) < batch.num_rows:
        batch = batch.take(pa.array(rows))
    count = pc.list_value_length(batch.column("labels")).to_numpy()
    size_wh = np.stack([batch.column(name).to_numpy() for name in ("width_px", "height_px")], axis=1)
    return Objects(
        image=rows.repeat(count), size_wh=size_wh.repeat(count, axis=0).astype(np.float64),
        boxes_xyxy=batch.column("boxes_xyxy").flatten().flatten().to_numpy().reshape(-1, 4).astype(np.float64),
        labels=batch.column("labels").flatten().to_numpy(),
        iscrowd=batch.column("iscrowd").flatten().to_numpy(zero_copy_only=False).astype(bool))


def _per_class(batch: pa.RecordBatch, num_classes: int) -> list[int]:
    labels = batch.column("labels").flatten().to_numpy()
    return np.bincount(labels[(labels >= 0) & (labels < num_classes)], minlength=num_classes).tolist()


def _faults(objects: Objects, detector_shape: DetectorShape):
    """(kind, (n,) bool, how to describe object i) of each fault; an object has at most one box fault."""
    boxes = objects.boxes_xyxy
    low, high = boxes[:, :2], boxes[:, 2:]
    finite = np.isfinite(boxes).all(axis=1)
    flat = finite & (high <= low).any(axis=1)
    outside = finite & ~flat & ((low < -TOLERANCE_PX) | (high > objects.size_wh + TOLERANCE_PX)).any(axis=1)
    valid = finite & ~flat & ~outside & ~objects.iscrowd
    with np.errstate(invalid="ignore"):  # of boxes that are not finite
        sides_px = (high - low) * _scale(objects, detector_shape)
    short, long = sides_px.min(axis=1), sides_px.max(axis=1)

    def box(i: int) -> str:
        width, height = objects.size_wh[i].tolist()
        return f"[{', '.join(f'{side:g}' for side in np.round(boxes[i], 2).tolist())}] in {width:g}x{height:g} px"

    def shown_size(i: int) -> str:
        return f"{sides_px[i, 0]:.1f}x{sides_px[i, 1]:.1f} px at image size {detector_shape.image_size_px}"

    yield ("label out of range", (objects.labels < 0) | (objects.labels >= detector_shape.num_classes),
           lambda i: f"label {objects.labels[i]} of {detector_shape.num_classes} classes")
    yield "box is not finite", ~finite, box
    yield "box without area", flat, box
    yield "box outside the image", outside, box
    yield "duplicate box", _repeated(objects) & valid, lambda i: f"label {objects.labels[i]}, box {box(i)}"
    yield "tiny object", valid & (short <= MIN_SIDE_PX), shown_size
    yield "elongated object", valid & (short > MIN_SIDE_PX) & (long >= MAX_ASPECT_RATIO * short), shown_size


def _scale(objects: Objects, detector_shape: DetectorShape) -> np.ndarray:
    """(n, 1): pixels of the detector's input per pixel of the image."""
    return detector_shape.image_size_px / np.maximum(objects.size_wh.max(axis=1, keepdims=True, initial=1), 1)


def _repeated(objects: Objects) -> np.ndarray:
    """(n,) bool: an earlier object of the image has the same label and the same box, rounded to pixels."""
    keys = np.column_stack([objects.image, objects.labels, np.rint(np.nan_to_num(objects.boxes_xyxy))])
    repeated = np.ones(len(keys), bool)
    repeated[np.unique(keys, axis=0, return_index=True)[1]] = False
    return repeated


def _measure(objects: Objects, detector_shape: DetectorShape, statistics: Statistics) -> None:
    """Count the objects that training uses, and those of them that some anchor fits."""
    with np.errstate(invalid="ignore"):
        sides_px = (objects.boxes_xyxy[:, 2:] - objects.boxes_xyxy[:, :2]) * _scale(objects, detector_shape)
        sides_px = sides_px[~objects.iscrowd & (sides_px > MIN_SIDE_PX).all(axis=1) & np.isfinite(sides_px).all(axis=1)]
    if len(sides_px):
        best = shape_similarity(sides_px, detector_shape.anchors_px).max(axis=1)
        statistics.num_measured, statistics.num_fitting = len(best), int((best > 1 / RATIO_THRESHOLD).sum())
