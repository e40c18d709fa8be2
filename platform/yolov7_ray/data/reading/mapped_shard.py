"""A memory-mapped shard with random access; data are copied only on access."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from yolov7.images.sample import Polygons


class MappedShard:
    """The rows of one mapped Arrow file, but for those `removed`."""

    def __init__(self, path: str | os.PathLike, removed: Sequence[int] = ()):
        self.path = Path(path)
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self.batches = list(_without(batches, removed)) if len(removed) else batches
        self.ends = np.cumsum([batch.num_rows for batch in self.batches])

    def _cell(self, row: int, column: str) -> pa.Scalar:
        number = int(np.searchsorted(self.ends, row, side="right"))
        batch = self.batches[number]
        return batch.column(column)[row - int(self.ends[number]) + batch.num_rows]

    def image(self, row: int) -> pa.Buffer:
        """The encoded image, not copied."""
        return self._cell(row, "image").as_buffer()

    @cached_property
    def sizes_hw(self) -> np.ndarray:
        """(rows, 2) height and width of all images."""
        columns = [[batch.column(name).to_numpy() for batch in self.batches] for name in ("height_px", "width_px")]
        return np.stack([np.concatenate(column) for column in columns], axis=1)

    def class_counts(self, num_classes: int) -> np.ndarray:
        """(rows, C) objects of each class in every image, crowds left out."""
        counts = []
        for batch in self.batches:
            labels, iscrowd = batch.column("labels"), batch.column("iscrowd")
            rows = np.repeat(np.arange(batch.num_rows), np.diff(labels.offsets.to_numpy()))
            wanted = ~iscrowd.flatten().to_numpy(zero_copy_only=False)
            cells = rows * num_classes + labels.flatten().to_numpy()
            counts.append(np.bincount(cells[wanted], minlength=batch.num_rows * num_classes))
        return np.concatenate(counts).reshape(-1, num_classes)

    def values(self, row: int) -> dict:
        """All columns except image and polygons, by name."""
        def array(column: str, dtype: type) -> np.ndarray:
            return self._cell(row, column).values.to_numpy(zero_copy_only=False).astype(dtype)

        return {
            "image_id": self._cell(row, "image_id").as_py(), "file_name": self._cell(row, "file_name").as_py(),
            "height_px": self._cell(row, "height_px").as_py(), "width_px": self._cell(row, "width_px").as_py(),
            "boxes_xyxy": self._cell(row, "boxes_xyxy").values.flatten().to_numpy().reshape(-1, 4).copy(),
            "labels": array("labels", np.int64), "iscrowd": array("iscrowd", np.bool_),
            "area": array("area", np.float32),
        }

    def polygons(self, row: int) -> Polygons:
        """Per object its rings, (k, 2) float32."""
        objects = self._cell(row, "polygons").values
        of_object, rings = objects.offsets.to_numpy(), objects.values
        of_ring, xy = rings.offsets.to_numpy(), rings.values.to_numpy()
        return [[xy[of_ring[ring]:of_ring[ring + 1]].reshape(-1, 2) for ring in range(first, last)]
                for first, last in zip(of_object[:-1], of_object[1:], strict=True)]


def _without(batches: Sequence[pa.RecordBatch], removed: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """What lies between the removed rows, ascending, as slices that are not copied."""
    first = 0
    for batch in batches:
        inside = [row - first for row in removed if first <= row < first + batch.num_rows]
        for start, end in zip([0, *(row + 1 for row in inside)], [*inside, batch.num_rows], strict=True):
            if end > start:
                yield batch.slice(start, end - start)
        first += batch.num_rows
