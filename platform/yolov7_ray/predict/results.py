"""Predictions on disk: Arrow files or COCO results, written row by row so that memory stays bounded."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa

ROW = pa.schema([
    ("image_id", pa.int64()),
    ("file_name", pa.string()),
    ("width_px", pa.int32()),
    ("height_px", pa.int32()),
    ("boxes_xyxy", pa.list_(pa.list_(pa.float32(), 4))),  # pixels of the displayed image
    ("scores", pa.list_(pa.float32())),  # best first
    ("labels", pa.list_(pa.int32())),  # index into the model's classes
])
"""One image and its detections."""

SHARD_BYTES = 128 << 20
"""Size at which an Arrow file is closed and the next one started."""


class ArrowWriter:
    """``00000.arrow …``: Arrow IPC files of ROW, whose metadata hold the classes as JSON."""

    def __init__(self, directory: Path, classes: list[str]):
        self.directory = directory
        self.schema = ROW.with_metadata({"classes": json.dumps(classes)})
        self._shard: pa.RecordBatchFileWriter | None = None
        self._sink: pa.NativeFile | None = None
        self._num_shards = 0

    def __enter__(self) -> Self:
        self._open()  # a readable file even without images
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._close()

    def write(self, table: pa.Table) -> None:
        """Append rows of ROW."""
        if self._sink.tell() > SHARD_BYTES:
            self._close()
            self._open()
        self._shard.write_table(table.cast(self.schema))

    def _open(self) -> None:
        self._sink = pa.OSFile(str(self.directory / f"{self._num_shards:05d}.arrow"), "wb")
        self._shard = pa.ipc.new_file(self._sink, self.schema)
        self._num_shards += 1

    def _close(self) -> None:
        self._shard.close()
        self._sink.close()


class CocoWriter:
    """``results.json`` in the format of COCO's tools, and ``images.json``, which maps ids to images."""

    def __init__(self, directory: Path, category_ids: list[int]):
        self.category_ids = category_ids
        self._results = JsonList(directory / "results.json")
        self._images = JsonList(directory / "images.json")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._results.close()
        self._images.close()

    def write(self, table: pa.Table) -> None:
        """Append rows of ROW; a box becomes x, y, width, height, rounded to a thousandth of a pixel."""
        for row in table.to_pylist():
            self._images.append({"id": row["image_id"], "file_name": row["file_name"],
                                 "width": row["width_px"], "height": row["height_px"]})
            self._results.extend(
                {"image_id": row["image_id"], "category_id": self.category_ids[label],
                 "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)], "score": round(score, 6)}
                for (x1, y1, x2, y2), score, label in zip(row["boxes_xyxy"], row["scores"], row["labels"])
            )


class JsonList:
    """A JSON list written to a file one item per line, never completely in memory."""

    def __init__(self, path: Path):
        self._file: IO[str] = open(path, "w")
        self.num_items = 0

    def append(self, item: Any) -> None:
        self._file.write(f"{',' if self.num_items else '['}\n{json.dumps(item)}")
        self.num_items += 1

    def extend(self, items: Iterable[Any]) -> None:
        for item in items:
            self.append(item)

    def close(self) -> None:
        self._file.write("\n]\n" if self.num_items else "[]\n")
        self._file.close()


def category_ids(classes: list[str], dataset_classes: tuple[str, ...], source_ids: tuple[int, ...]) -> list[int]:
    """COCO category of each of the model's classes: the dataset's own id if it has the class, else a new one."""
    known = dict(zip(dataset_classes, source_ids))
    new_id = max(source_ids, default=0)
    ids = []
    for name in classes:
        if name not in known:
            new_id += 1
        ids.append(known.get(name, new_id))
    return ids
