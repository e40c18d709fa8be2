"""The actor: image indices in, rows of detections out, batched by the shape of the letterboxed images.

It reads and decodes its images itself, in threads, while the model processes earlier ones. Full pictures are let go
as soon as they are letterboxed.

B images · n detections · S side of the square · H W pixels of a rectangle
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch

from yolov7.images.sample import Letterbox, decode_image

from ..data.ingest.image_header import whole_jpeg_size_hw, whole_png_size_hw
from ..detect.detector import Detector
from ..registry.model_source import ModelSource
from .drawing import drawn
from .images import Images
from .pixel_budget import PixelBudget
from .results import ROW
from .spec import PredictSpec

WAITING_BYTES = 64e6
"""Letterboxed images that wait for others of their shape; beyond that the largest group goes ahead."""

RESULT = pa.schema([*ROW, ("problem", pa.string()), ("index", pa.int64()), ("drawn", pa.large_binary())])
"""An actor's result for the image at `index`: a row, or why there is none; if the job asks for it, the drawn JPEG."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A letterboxed image."""

    index: int
    image_id: int
    file_name: str
    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""
    fit: Letterbox


class Predictor:
    """One actor: loads the model once, then maps image indices to rows of detections."""

    def __init__(self, images: Images, source: ModelSource, spec: PredictSpec):
        num_threads = max(1, int(spec.resources.cpus_per_worker))
        torch.set_num_threads(num_threads)
        cv2.setNumThreads(0)  # images are decoded in the threads of this pool
        self.detector = Detector(
            source.load(), device="cuda" if spec.resources.gpus_per_worker else "cpu", engine=spec.engine,
            precision=spec.precision, image_size_px=spec.image_size_px, rectangular=spec.rectangular,
            confidence=spec.confidence_threshold, iou=spec.iou_threshold, max_detections=spec.max_detections,
            multi_label=spec.multi_label, class_agnostic=spec.class_agnostic,
            test_time_augmentation=spec.test_time_augmentation, reduced_decoding=spec.reduced_decoding)
        if self.detector.chosen_by:
            print(f"predict: {self.detector}: {self.detector.chosen_by}", flush=True)
        self.images, self.spec = images, spec
        self.pool, self.budget = ThreadPoolExecutor(num_threads), PixelBudget()

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Column `index` of a block -> tables of RESULT in its order; the next images are read meanwhile."""
        indices = block["index"].to_pylist()
        answers: dict[int, dict[str, Any]] = {}
        groups: dict[tuple, list[Prepared]] = {}
        num_given = 0
        for prepared in self._read_ahead(indices):
            if isinstance(prepared, dict):
                answers[prepared["index"]] = prepared
            else:
                groups.setdefault(prepared.pixels.shape, []).append(prepared)
            while (shape := self._due(groups)) is not None:
                answers |= self._answers(groups.pop(shape))
            if all(index in answers for index in indices[num_given:num_given + self.spec.batch_size]):
                ready = indices[num_given:num_given + self.spec.batch_size]
                num_given += len(ready)
                yield _table([answers.pop(index) for index in ready])
        for group in groups.values():
            answers |= self._answers(group)
        for start in range(num_given, len(indices), self.spec.batch_size):
            yield _table([answers.pop(index) for index in indices[start:start + self.spec.batch_size]])

    def alone(self, index: int) -> pa.Table:
        """RESULT of one image, with no other in work."""
        return pa.concat_tables(self(pa.table({"index": [index]})))

    def _read_ahead(self, indices: Sequence[int]) -> Iterator[Prepared | dict[str, Any]]:
        """Images prepared in the pool, in order, a batch ahead of those that are used."""
        waiting: deque[Future] = deque()
        for index in indices:
            waiting.append(self.pool.submit(self._prepare, index))
            if len(waiting) > self.spec.batch_size:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _prepare(self, index: int) -> Prepared | dict[str, Any]:
        """An image letterboxed to the model's input, or the row that says why not."""
        image = self.images.read(index)
        size_hw = whole_jpeg_size_hw(image.data) or whole_png_size_hw(image.data)
        try:
            with self.budget.of(None if size_hw is None else 3 * size_hw[0] * size_hw[1]):
                pixels, fit = self.detector.open(image.data)
        except ValueError as error:
            return problem_row(index, f"{image.file_name}: {error}")
        return Prepared(index, image.image_id, image.file_name, pixels, fit)

    def _due(self, groups: dict[tuple, list[Prepared]]) -> tuple | None:
        """The shape whose images should be processed now: a full batch, or the largest group of too many."""
        if not groups:
            return None
        shape = max(groups, key=lambda shape: len(groups[shape]))
        waiting_bytes = sum(len(group) * np.prod(shape) for shape, group in groups.items())
        return shape if len(groups[shape]) >= self.spec.batch_size or waiting_bytes > WAITING_BYTES else None

    def _answers(self, group: list[Prepared]) -> dict[int, dict[str, Any]]:
        """Rows of RESULT of images of one shape, by their index."""
        found = self.detector.run([prepared.pixels for prepared in group], [self.detector.options] * len(group))
        rows = [row_of(prepared, detections) for prepared, detections in zip(group, found, strict=True)]
        if self.spec.draw:
            rows = list(self.pool.map(self._with_picture, rows))
        return {row["index"]: row for row in rows}

    def _with_picture(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its image, read again, drawn as JPEG: many decoded images at a time would take too much memory."""
        with self.budget.of(2 * 3 * row["height_px"] * row["width_px"]):
            return row | {"drawn": drawn(decode_image(self.images.read(row["index"]).data), row, self.detector.classes)}


def row_of(prepared: Prepared, found: np.ndarray) -> dict[str, Any]:
    """A row of RESULT from detections (n, 6) in pixels of the letterboxed image."""
    height, width = prepared.fit.original_size_hw
    return {"image_id": prepared.image_id, "file_name": prepared.file_name, "width_px": width, "height_px": height,
            "boxes_xyxy": prepared.fit.to_original(found[:, :4]).tolist(), "scores": found[:, 4].tolist(),
            "labels": found[:, 5].astype(int).tolist(), "problem": None, "index": prepared.index}


def problem_row(index: int, problem: str) -> dict[str, Any]:
    """A row of RESULT for an image without detections."""
    return {"problem": problem, "index": index}


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RESULT)
