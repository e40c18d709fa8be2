"""An Arrow dataset as files of another format, image by image: memory does not grow with the dataset.

Boxes are in the displayed frame, and the displayed size is declared, so that they are read back as they are; image
bytes are those that came. COCO keeps everything that the dataset holds; numbers have all their digits.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from xml.sax.saxutils import escape

import numpy as np

from ... import storage
from ...errors import JobError, NotFound
from ..ingest.ingest import SOURCE_IDS
from ..manifest import Manifest, dataset_root, load_manifest
from ..reading.dataset import ArrowDataset
from ..reading.mapped_shard import MappedShard
from .links import Links

PARALLEL_WRITES = 16


def export(spec, run_name: str) -> dict:
    """Run the export job `spec`; returns where the files are. JobError if a name would leave the directory."""
    manifest = load_manifest(spec.dataset)
    splits = spec.splits or list(manifest.splits)
    for split in splits:
        manifest.split(split)
    writer = {"coco": _Coco, "yolo": _Yolo, "voc": _Voc}[spec.format](spec, manifest, splits)
    images = 0
    for split in splits:
        images += writer.write(split, ArrowDataset(spec.dataset, split))
    writer.close()
    print(f"{run_name}: {images:,} images as {spec.format} -> {spec.output}")
    for what, count in writer.lost.items():
        print(f"  {count:,} x {what}")
    return {"output": spec.output}


class _Writer:
    """What the formats share: images, and a count of what a format cannot hold."""

    one_file_each = True
    """Whether every image has an annotation file of its own, named as the image is."""

    def __init__(self, spec, manifest: Manifest, splits: list[str]):
        self.spec, self.manifest, self.splits = spec, manifest, splits
        self.lost: Counter[str] = Counter()
        self._counting = threading.Lock()
        self.listed: dict[str, list[str]] = {split: [] for split in splits}
        self.source_ids = _source_ids(spec.dataset)
        self.links = Links(manifest, spec.output) if spec.images == "link" else None

    def put(self, path: str, text: str) -> None:
        storage.write_bytes(storage.join(self.spec.output, path), text.encode())

    def close(self) -> None:
        """Write what belongs to all splits."""

    def write(self, split: str, dataset: ArrowDataset) -> int:
        """Write a split; returns its number of images."""
        with ThreadPoolExecutor(PARALLEL_WRITES) as pool:
            waiting = []
            for _, path, row in self.rows(split, dataset):
                waiting += [pool.submit(self.put, *file) for file in self.files(path, row)]
                if self.spec.images:
                    waiting.append(pool.submit(self._put_image, path, row))
                if len(waiting) >= 4 * PARALLEL_WRITES:
                    [task.result() for task in waiting]
                    waiting = []
            [task.result() for task in waiting]
        return len(dataset)

    def _put_image(self, path: str, row: dict) -> None:
        place, image = storage.join(self.spec.output, path), row["image"].to_pybytes()
        if self.links and self.links.link(row["file_name"], image, place):
            return
        if self.links:
            with self._counting:
                self.lost["image that is no file of the source any more, or on another disk: written"] += 1
        storage.write_bytes(place, image)

    def rows(self, split: str, dataset: ArrowDataset) -> Iterator[tuple[tuple[int, int], str, dict]]:
        """Shard and row, path of the image below the output, and columns of every image."""
        stems: set[int] = set()
        for number, shard in enumerate(dataset.split.shards):
            with dataset.cache.held(dataset.uri, shard) as file:
                mapped = MappedShard(file, shard.removed)
            for row in range(shard.num_rows):
                values = mapped.values(row)
                name = values["file_name"]
                if name.startswith("/") or ".." in PurePosixPath(name).parts:
                    raise JobError(f"{split}: {name}", "would be written outside the output", "rename the image")
                path = self.path(split, name)
                if self.one_file_each and (stem := hash(path.rpartition(".")[0])) in stems:
                    raise JobError(f"{split}: {name}", "has the name of another image but for its ending, and so would "
                                   "its annotation file", "rename it, or export as coco")
                stems |= {stem} if self.one_file_each else set()
                yield (number, row), path, values | {
                    "polygons": mapped.polygons(row), "image": mapped.image(row)}

    def path(self, split: str, name: str) -> str:
        raise NotImplementedError

    def files(self, path: str, row: dict) -> list[tuple[str, str]]:
        """Path and text of the annotation files of one image."""
        return []


class _Coco(_Writer):
    one_file_each = False

    def path(self, split: str, name: str) -> str:
        return f"{split}/{name}"

    def write(self, split: str, dataset: ArrowDataset) -> int:
        """Images, then annotations/instances_SPLIT.json, written piece by piece."""
        manifest = dataset.manifest
        classes = [self.source_ids.get(("", number), number) for number in manifest.source_ids]
        with storage.staged() as (file, path), storage.staged() as (annotations, annotations_path):
            file.write(b'{"images": [')
            number = 0
            for index, _, row in self.rows(split, dataset):
                image_id = self.source_ids.get((split, row["image_id"]), row["image_id"])
                file.write((b",\n" if any(index) else b"") + json.dumps({
                    "id": image_id, "file_name": row["file_name"], "height": row["height_px"],
                    "width": row["width_px"]}).encode())
                for annotation in _annotations(row, image_id, classes):
                    number += 1
                    annotations.write((b",\n" if number > 1 else b"") + json.dumps(
                        {"id": number} | annotation).encode())
            annotations.flush()
            file.write(b'],\n"annotations": [')
            with open(annotations_path, "rb") as written:
                while piece := written.read(1 << 20):
                    file.write(piece)
            categories = [{"id": source_id, "name": name}
                          for source_id, name in zip(classes, manifest.classes, strict=True)]
            file.write(b'],\n"categories": ' + json.dumps(categories).encode() + b"}\n")
            file.flush()
            storage.upload(path, storage.join(self.spec.output, f"annotations/instances_{split}.json"))
        return super().write(split, dataset) if self.spec.images else len(dataset)


def _annotations(row: dict, image_id: object, classes: list) -> Iterator[dict]:
    columns = (row[key] for key in ("boxes_xyxy", "labels", "iscrowd", "area", "polygons"))
    for box, label, iscrowd, area, rings in zip(*columns, strict=True):
        left, top, right, bottom = box.astype(np.float64).tolist()
        yield {"image_id": image_id, "category_id": classes[label], "bbox": [left, top, right - left, bottom - top],
               "area": float(area), "iscrowd": int(iscrowd),
               "segmentation": [ring.astype(np.float64).ravel().tolist() for ring in rings]}


class _Yolo(_Writer):
    def path(self, split: str, name: str) -> str:
        is_placed = self.manifest.source["format"] == "yolo" and name.startswith("images/")
        below = [part for part in name.split("/")[:-1] if part.lower() != "images"]  # readers replace any of them by labels
        path = name if is_placed else "/".join(["images", split, *below, name.rpartition("/")[2]])
        self.listed[split].append(path)
        return path

    def close(self) -> None:
        """Lists of images, and data.yaml."""
        for split in self.splits:
            self.put(f"{split}.txt", "".join(f"./{path}\n" for path in self.listed[split]))
        names = "".join(f"  {label}: {json.dumps(name)}\n" for label, name in enumerate(self.manifest.classes))
        self.put("data.yaml", "".join(f"{split}: {split}.txt\n" for split in self.splits) + "names:\n" + names)

    def files(self, path: str, row: dict) -> list[tuple[str, str]]:
        """A line per object: a polygon where one ring has the bounds of the box, else the box."""
        size = np.array([row["width_px"], row["height_px"]], np.float64)
        lines = []
        for box, label, iscrowd, rings in zip(row["boxes_xyxy"].astype(np.float64), row["labels"], row["iscrowd"],
                                              row["polygons"], strict=True):
            if iscrowd:
                self.lost["crowd left out: YOLO has none"] += 1
                continue
            values = [*((box[:2] + box[2:]) / 2 / size), *((box[2:] - box[:2]) / size)]
            if len(rings) == 1 and np.array_equal(np.concatenate([rings[0].min(0), rings[0].max(0)]), box):
                values = (rings[0].astype(np.float64) / size).ravel()
            elif rings:
                self.lost["polygon written as its box"] += 1
            lines.append(" ".join([str(int(label)), *(repr(float(value)) for value in values)]) + "\n")
        labels = "labels/" + path.removeprefix("images/").rpartition(".")[0] + ".txt"
        return [(labels, "".join(lines))]


class _Voc(_Writer):
    def path(self, split: str, name: str) -> str:
        name = name.removeprefix("JPEGImages/")
        name = name if len(self.splits) == 1 else f"{split}/{name}"
        self.listed[split].append(name.rpartition(".")[0])
        return f"JPEGImages/{name}"

    def close(self) -> None:
        """ImageSets/Main/SPLIT.txt."""
        for split in self.splits:
            self.put(f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in self.listed[split]))

    def files(self, path: str, row: dict) -> list[tuple[str, str]]:
        """The XML; crowds are difficult objects, pixels count from 1."""
        objects = ""
        for box, label, iscrowd, rings in zip(row["boxes_xyxy"].astype(np.float64).tolist(), row["labels"],
                                              row["iscrowd"], row["polygons"], strict=True):
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, box[2], box[3]), strict=True)
            objects += (f"<object><name>{escape(self.manifest.classes[label])}</name>"
                        f"<difficult>{int(iscrowd)}</difficult><bndbox>"
                        + "".join(f"<{key}>{value!r}</{key}>" for key, value in corners) + "</bndbox></object>\n")
            self.lost["polygon written as its box"] += bool(rings)
        name = path.removeprefix("JPEGImages/")
        text = (f"<annotation><filename>{escape(name)}</filename><size><width>{row['width_px']}</width>"
                f"<height>{row['height_px']}</height><depth>3</depth></size>\n{objects}</annotation>\n")
        return [(f"Annotations/{name.rpartition('.')[0]}.xml", text)]


def _source_ids(dataset: str) -> dict[tuple[str, int], object]:
    """(split, image id), or ("", class id), in the dataset -> the source's id where that is no number."""
    try:
        lines = storage.read_bytes(storage.join(dataset_root(dataset), SOURCE_IDS)).splitlines()
    except NotFound:
        return {}
    records = [record for record in map(json.loads, lines) if "source" not in record]  # of several: may repeat
    return {(record.get("split", ""), record.get("image_id", record.get("class_id"))): record["source_id"]
            for record in records}
