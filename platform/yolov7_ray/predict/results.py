"""Predictions on disk: Arrow, COCO, CSV or YOLO, written row by row so that memory stays bounded."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
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


class CsvWriter:
    """``detections.csv``, a line for each detection, and ``images.csv``, a line for each image."""

    DETECTION = ("image_id", "file_name", "x1", "y1", "x2", "y2", "score", "label", "class")
    IMAGE = ("image_id", "file_name", "width_px", "height_px", "num_detections")

    def __init__(self, directory: Path, classes: list[str]):
        self.classes = classes
        self._files = [open(directory / name, "w", newline="") for name in ("detections.csv", "images.csv")]
        self._detections, self._images = (csv.writer(file, lineterminator="\n") for file in self._files)
        self._detections.writerow(self.DETECTION)
        self._images.writerow(self.IMAGE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for file in self._files:
            file.close()

    def write(self, table: pa.Table) -> None:
        """Append rows of ROW; pixels to a thousandth."""
        for row in table.to_pylist():
            name = (row["image_id"], row["file_name"])
            self._images.writerow((*name, row["width_px"], row["height_px"], len(row["scores"])))
            self._detections.writerows(
                (*name, *(round(value, 3) for value in box), round(score, 6), label, self.classes[label])
                for box, score, label in zip(row["boxes_xyxy"], row["scores"], row["labels"]))


class YoloWriter:
    """``labels/…txt`` for each image, empty where nothing was found, and ``classes.txt``, a name in each line."""

    def __init__(self, directory: Path, classes: list[str]):
        self.names = Names(directory / "labels", ".txt")
        (directory / "classes.txt").write_text("".join(f"{name}\n" for name in classes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        pass

    def write(self, table: pa.Table) -> None:
        """Write the files of rows of ROW: class, centre, width and height as shares of the image, score."""
        for row in table.to_pylist():
            width, height = row["width_px"], row["height_px"]
            self.names.path(row["file_name"]).write_text("".join(
                f"{label} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} {(x2 - x1) / width:.6f} "
                f"{(y2 - y1) / height:.6f} {score:.6f}\n"
                for (x1, y1, x2, y2), score, label in zip(row["boxes_xyxy"], row["scores"], row["labels"])))


class Names:
    """Files for images, in a folder that mirrors theirs: ``a/b.jpg`` -> ``a/b.txt``, and, if that is taken, ``a/b.png.txt``."""

    def __init__(self, directory: Path, suffix: str):
        self.directory, self.suffix = directory, suffix
        self._taken: set[str] = set()

    def path(self, file_name: str) -> Path:
        """A path that no image had before; its folder is made."""
        parts = [part.lstrip("./") for part in PurePosixPath(file_name.replace("\\", "/")).parts]
        name = PurePosixPath(*(filter(None, parts) if any(parts) else ["image"]))
        choices = [str(name.with_suffix(self.suffix)), f"{name}{self.suffix}"]
        chosen = next((choice for choice in choices if choice not in self._taken), f"{name}-{len(self._taken)}{self.suffix}")
        self._taken.add(chosen)
        path = self.directory / chosen
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


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
