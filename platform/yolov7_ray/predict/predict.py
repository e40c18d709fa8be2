"""Batch inference with Ray Data: a dataset or a folder of images -> files of detections.

Only image indices go into Ray, and only detections come out. An actor reads and decodes its images itself, in
threads, while the model processes the previous ones: no pixels are sent between processes.

B images · n detections
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import cv2
import numpy as np
import pyarrow as pa
import ray.data
import ray.exceptions
import torch
from torch import Tensor

from yolov7.evaluation.postprocess import postprocess
from yolov7.evaluation.augmented_inference import TestTimeAugmentation
from yolov7.images.batch import normalize
from yolov7.images.sample import Letterbox, decode_image, letterbox
from yolov7.model.reparameterize import reparameterize

from .. import storage
from ..data.reading.dataset import ArrowDataset
from ..errors import JobError
from ..registry.model_source import LoadedModel, ModelSource, locate
from .results import ROW, ArrowWriter, CocoWriter, JsonList, category_ids
from .spec import PredictSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
BATCHES_PER_BLOCK = 8
"""Batches that an actor gets at once, so that it can read ahead."""
PROGRESS_EVERY_S = 5.0
NUM_PROBLEMS_SHOWN = 20
SUMMARY = "predictions.json"

RESULT = ROW.append(pa.field("problem", pa.string()))
"""An actor's result for an image: a row, or why there is none."""


# --- images -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A decoded image."""

    image_id: int
    file_name: str
    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""


class Images(Protocol):
    """Images by index; small and picklable, since it is sent to every actor."""

    classes: tuple[str, ...]
    """Class names of the dataset, with `source_ids` as their original ids; empty without a dataset."""
    source_ids: tuple[int, ...]

    def __len__(self) -> int: ...

    def read(self, index: int) -> Picture:
        """Read and decode; ValueError with the file name if it is no image."""


class DatasetImages:
    """The images of one split of an Arrow dataset."""

    def __init__(self, uri: str, split: str):
        self.dataset = ArrowDataset(uri, split)
        self.classes = tuple(self.dataset.classes)
        self.source_ids = tuple(self.dataset.manifest.source_ids)

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> Picture:
        truth = self.dataset.truth(index)
        return Picture(truth.image_id, truth.file_name, decoded(self.dataset.image_bytes(index), truth.file_name))


class FolderImages:
    """All image files below a directory, local or in S3; the id is the position in the sorted list."""

    classes: tuple[str, ...] = ()
    source_ids: tuple[int, ...] = ()

    def __init__(self, uri: str):
        self.uri = uri
        self.paths = [info.path for info in storage.list_files(uri)
                      if PurePosixPath(info.path).suffix.lower() in SUFFIXES]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Picture:
        path = self.paths[index]
        return Picture(index, path, decoded(storage.read_bytes(storage.join(self.uri, path)), path))


def decoded(data: bytes, file_name: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB; ValueError with the file name if the bytes are no image."""
    try:
        return decode_image(data)
    except ValueError as error:
        raise ValueError(f"{file_name}: {error}") from None


def images_of(spec: PredictSpec) -> Images:
    """The images of the job. JobError if there are none."""
    uri = storage.absolute(spec.images)
    if storage.exists(storage.join(uri, "dataset.json")):
        images: Images = DatasetImages(uri, spec.split)
    else:
        images = FolderImages(uri)
    if not len(images):
        raise JobError(spec.images, "holds no images",
                       f"give an Arrow dataset, or a directory of images ({', '.join(SUFFIXES)})")
    return images


# --- the actor ----------------------------------------------------------------------------------------


class Predictor:
    """One actor: loads the model once, then maps image indices to rows of detections."""

    def __init__(self, images: Images, source: ModelSource, spec: PredictSpec):
        num_threads = max(1, int(spec.resources.cpus_per_worker))
        torch.set_num_threads(num_threads)
        cv2.setNumThreads(0)  # images are decoded in the threads of this pool
        loaded = source.load()
        self.device = torch.device("cuda" if spec.resources.gpus_per_worker else "cpu")
        model = loaded.model if loaded.model.is_folded else reparameterize(loaded.model)
        model = model.eval().to(self.device, memory_format=torch.channels_last)
        self.model = TestTimeAugmentation(model) if spec.test_time_augmentation else model
        self.size_px = image_size_px(spec, loaded)
        self.images, self.spec = images, spec
        self.pool = ThreadPoolExecutor(num_threads)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Column `index` of a block -> tables of RESULT, one per batch; the next batch is read meanwhile."""
        indices = block["index"].to_pylist()
        size = self.spec.batch_size
        batches = [indices[start:start + size] for start in range(0, len(indices), size)]
        ahead = self._submit(batches[0])
        for i in range(len(batches)):
            reading, ahead = ahead, self._submit(batches[i + 1]) if i + 1 < len(batches) else []
            rows = self._to_rows([future.result() for future in reading])
            yield pa.Table.from_pylist(rows, schema=RESULT)

    def _submit(self, indices: Sequence[int]) -> list[Future]:
        return [self.pool.submit(self._prepare, index) for index in indices]

    def _prepare(self, index: int) -> tuple[Picture, np.ndarray, Letterbox] | str:
        """An image letterboxed to the model's square, or the reason why not."""
        try:
            picture = self.images.read(index)
        except ValueError as error:
            return str(error)
        return picture, *letterbox(picture.pixels, (self.size_px, self.size_px))

    def _to_rows(self, prepared: list[tuple[Picture, np.ndarray, Letterbox] | str]) -> list[dict[str, Any]]:
        """Rows of RESULT in the order of `prepared`."""
        fitted = [item[1] for item in prepared if not isinstance(item, str)]
        found = iter(self._detect(np.stack(fitted)) if fitted else ())
        return [{"problem": item} if isinstance(item, str) else row_of(item[0], item[2], next(found))
                for item in prepared]

    @torch.inference_mode()
    def _detect(self, images: np.ndarray) -> list[Tensor]:
        """(B, S, S, 3) uint8 -> B detections (n, 6) in pixels of the square."""
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device)
        predictions = self.model(normalize(batch))
        return postprocess(predictions, self.spec.confidence_threshold, self.spec.iou_threshold,
                           self.spec.multi_label, self.spec.class_agnostic)


def row_of(picture: Picture, fit: Letterbox, detections: Tensor) -> dict[str, Any]:
    """A row of ROW from detections (n, 6) in pixels of the letterboxed image."""
    found = detections.cpu().numpy()
    height, width = fit.original_size_hw
    return {"image_id": picture.image_id, "file_name": picture.file_name, "width_px": width, "height_px": height,
            "boxes_xyxy": fit.to_original(found[:, :4]).tolist(), "scores": found[:, 4].tolist(),
            "labels": found[:, 5].astype(int).tolist(), "problem": None}


def image_size_px(spec: PredictSpec, loaded: LoadedModel) -> int:
    """Side of the model's square input. JobError if the model does not support it."""
    size, stride = spec.image_size_px or loaded.image_size_px, max(loaded.model.strides)
    if size % stride:
        raise JobError("image_size_px", f"{size} is not a multiple of the model's largest stride {stride}",
                       f"choose {max(1, size // stride) * stride} or {(size // stride + 1) * stride}")
    return size


# --- the job ------------------------------------------------------------------------------------------


def predict(spec: PredictSpec, run_name: str) -> dict[str, str]:
    """Detect in all images and write ``<output>/predictions/…`` and, last, ``<output>/predictions.json``.

    An image that cannot be decoded does not stop the job: it is counted, and listed in
    ``predictions/undecodable.json``. Results are in the order of the images, for any number of workers.
    """
    started_s = time.monotonic()
    output = storage.absolute(spec.output)
    images = images_of(spec)
    source = locate(spec.model, spec.registry)
    loaded = source.load()
    size_px = image_size_px(spec, loaded)
    ids = category_ids(loaded.classes, images.classes, images.source_ids)
    _remove_earlier(output)
    with tempfile.TemporaryDirectory(prefix="yolov7-predict-") as directory:
        folder = Path(directory)
        writer = CocoWriter(folder, ids) if spec.format == "coco" else ArrowWriter(folder, loaded.classes)
        with writer:
            counts = _write(_results(images, source, spec), writer.write, folder, len(images))
        files = [{"path": f"predictions/{path.name}", "num_bytes": path.stat().st_size, "sha256": storage.digest(path)}
                 for path in sorted(folder.iterdir())]
        storage.upload_directory(folder, storage.join(output, "predictions"))
    storage.write_json(storage.join(output, SUMMARY), {
        "run": run_name, "model": source.ref, "images": spec.images, "split": spec.split if images.classes else None,
        "format": spec.format, "image_size_px": size_px, "confidence_threshold": spec.confidence_threshold,
        "iou_threshold": spec.iou_threshold, "multi_label": spec.multi_label, "class_agnostic": spec.class_agnostic,
        "test_time_augmentation": spec.test_time_augmentation,
        "classes": [{"name": name, "category_id": i} for name, i in zip(loaded.classes, ids)],
        **counts, "seconds": round(time.monotonic() - started_s, 3), "files": files,
    })
    print(f"predict: {counts['num_detections']} detections in {counts['num_images']} images, "
          f"{counts['num_undecodable']} undecodable -> {output}", flush=True)
    return {"output": output}


def _results(images: Images, source: ModelSource, spec: PredictSpec) -> Iterator[pa.Table]:
    """Tables of RESULT in the order of the images, as they finish."""
    rows = spec.batch_size * BATCHES_PER_BLOCK
    workers = min(spec.resources.workers, -(-len(images) // spec.batch_size))
    rows = min(rows, -(-len(images) // workers))  # every worker gets some
    # Blocks in memory: reading them needs no task, hence no CPU, since the actors may hold all CPUs.
    blocks = [pa.table({"index": np.arange(start, min(start + rows, len(images)))})
              for start in range(0, len(images), rows)]
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # progress is printed below, in one line
    dataset = ray.data.from_arrow(blocks)
    dataset.context.enable_progress_bars = False
    dataset.context.execution_options.preserve_order = True
    dataset = dataset.map_batches(
        Predictor, batch_size=None, batch_format="pyarrow", fn_constructor_args=(images, source, spec),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=spec.resources.cpus_per_worker, num_gpus=spec.resources.gpus_per_worker or None)
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, JobError):
            raise error.cause from None
        raise


def _write(results: Iterator[pa.Table], write: Callable[[pa.Table], None], folder: Path, total: int) -> dict[str, Any]:
    """Pass the rows to `write`, list undecodable images in `folder`, print progress; returns the counts."""
    num_images = num_detections = 0
    problems: list[str] = []
    undecodable = JsonList(folder / "undecodable.json")
    started_s = printed_s = time.monotonic()
    for table in results:
        bad = table["problem"].drop_null().to_pylist()
        good = table.filter(table["problem"].is_null()).select(ROW.names)
        write(good)
        undecodable.extend(bad)
        problems = [*problems, *bad[:NUM_PROBLEMS_SHOWN - len(problems)]]
        num_images += good.num_rows
        num_detections += len(good["scores"].combine_chunks().flatten())
        num_bad = undecodable.num_items
        if time.monotonic() - printed_s >= PROGRESS_EVERY_S or num_images + num_bad == total:
            printed_s = time.monotonic()
            rate = (num_images + num_bad) / (printed_s - started_s)
            print(f"predict: {num_images + num_bad}/{total} images · {rate:.1f} images/s · {num_bad} undecodable",
                  flush=True)
    undecodable.close()
    return {"num_images": num_images, "num_detections": num_detections, "num_undecodable": undecodable.num_items,
            "undecodable": problems}


def _remove_earlier(output: str) -> None:
    """Remove the output of an earlier run, its summary first, so that no summary describes other files."""
    summary = storage.join(output, SUMMARY)
    if storage.exists(summary):
        earlier = storage.read_json(summary)
        storage.delete(summary)
        for file in earlier["files"]:
            storage.delete(storage.join(output, file["path"]))
