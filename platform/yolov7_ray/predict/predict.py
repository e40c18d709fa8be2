"""Batch inference with Ray Data: image indices go to a pool of actors, and only detections come out.

An actor reads and decodes its images itself (`predictor`), so no pixels are sent between processes; results come in
the order of the images, whatever happens to workers (`workers`), and replace earlier ones when complete (`output`).
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from .. import storage
from ..detect.detector import checked_size_px
from ..registry.model_source import locate
from .drawing import SHEET, ContactSheet
from .images import images_of
from .output import FOLDER, replace
from .results import ROW, ArrowWriter, CocoWriter, CsvWriter, JsonList, Names, YoloWriter, category_ids
from .spec import PredictSpec
from .workers import ENDED, results

PROGRESS_EVERY_S = 5.0
NUM_PROBLEMS_SHOWN = 20
WRITERS = {
    "arrow": lambda folder, classes, ids: ArrowWriter(folder, classes),
    "coco": lambda folder, classes, ids: CocoWriter(folder, ids),
    "csv": lambda folder, classes, ids: CsvWriter(folder, classes),
    "yolo": lambda folder, classes, ids: YoloWriter(folder, classes),
}
"""Format -> what writes it into a folder, from the model's classes and their COCO categories."""


def predict(spec: PredictSpec, run_name: str) -> dict[str, str]:
    """Detect in all images and write ``<output>/predictions/…`` and, last, ``<output>/predictions.json``.

    An image that cannot be decoded, or that ends its worker, does not stop the job: it is counted, and listed in
    ``predictions/undecodable.json``. Results are in the order of the images, for any number of workers. Those of an
    earlier job stay until these are complete.
    """
    started_s = time.monotonic()
    output = storage.absolute(spec.output)
    images = images_of(spec)
    source = locate(spec.model, spec.registry)
    loaded = source.load()
    size_px = checked_size_px(spec.image_size_px or loaded.image_size_px, max(loaded.model.strides))
    ids = category_ids(loaded.classes, images.classes, images.source_ids)
    with tempfile.TemporaryDirectory(prefix="yolov7-predict-") as directory:
        folder = Path(directory)
        with WRITERS[spec.format](folder, loaded.classes, ids) as writer:
            counts = _write(results(images, source, spec), writer.write, folder, len(images))
        replace(output, folder, {
            "run": run_name, "model": source.ref, "images": spec.images,
            "split": spec.split if images.classes else None, "format": spec.format, "image_size_px": size_px,
            "rectangular": spec.rectangular, "confidence_threshold": spec.confidence_threshold,
            "iou_threshold": spec.iou_threshold, "max_detections": spec.max_detections, "multi_label": spec.multi_label,
            "class_agnostic": spec.class_agnostic, "test_time_augmentation": spec.test_time_augmentation,
            "classes": [{"name": name, "category_id": i} for name, i in zip(loaded.classes, ids)],
            **counts, "seconds": round(time.monotonic() - started_s, 3)})
    print(f"predict: {counts['num_detections']} detections in {counts['num_images']} images, "
          f"{counts['num_undecodable']} undecodable, {counts['num_ended_workers']} ended their worker -> {output}",
          flush=True)
    sheet = {"sheet": storage.join(output, FOLDER, SHEET)} if spec.draw and counts["num_images"] else {}
    return {"output": output} | sheet


def _write(tables: Iterator[pa.Table], write: Callable[[pa.Table], None], folder: Path, total: int) -> dict[str, Any]:
    """Pass the rows to `write`, list images without result in `folder`, print progress; returns the counts."""
    num_images = num_detections = num_ended = 0
    problems: list[str] = []
    undecodable, names, sheet = JsonList(folder / "undecodable.json"), Names(folder / "drawn", ".jpg"), ContactSheet()
    started_s = printed_s = time.monotonic()
    for table in tables:
        bad = table["problem"].drop_null().to_pylist()
        answered = table.filter(table["problem"].is_null())
        good = answered.select(ROW.names)
        write(good)
        for file_name, jpeg in zip(answered["file_name"].to_pylist(), answered["drawn"].to_pylist()):
            if jpeg is not None:
                names.path(file_name).write_bytes(jpeg)
                sheet.add(jpeg)
        undecodable.extend(bad)
        problems = [*problems, *bad[:NUM_PROBLEMS_SHOWN - len(problems)]]
        num_ended += sum(problem.endswith(ENDED) for problem in bad)
        num_images += good.num_rows
        num_detections += len(good["scores"].combine_chunks().flatten())
        num_bad = undecodable.num_items
        if time.monotonic() - printed_s >= PROGRESS_EVERY_S or num_images + num_bad == total:
            printed_s = time.monotonic()
            rate = (num_images + num_bad) / (printed_s - started_s)
            print(f"predict: {num_images + num_bad}/{total} images · {rate:.1f} images/s · {num_bad} undecodable",
                  flush=True)
    undecodable.close()
    sheet.write(folder)
    return {"num_images": num_images, "num_detections": num_detections,
            "num_undecodable": undecodable.num_items - num_ended, "num_ended_workers": num_ended,
            "undecodable": problems}
