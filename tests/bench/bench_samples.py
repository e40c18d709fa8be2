"""Images per second of one core through the sample path, stage by stage.

    python tests/bench/bench_samples.py [COCO_FOLDER] [--size-px 640] [--rounds 3]

Rates count CPU time, so that other processes on the machine hardly move them; every rate is the best of some
rounds, in which all take turns. The folder holds train2017/, val2017/ and annotations/; without one, generated
shapes at 640 px stand in for photographs (their noise makes large files, slower to decode than most photographs).
Every epoch decodes afresh, so that a small data set tells what a large one would.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from yolov7_ray.data.ingest import ingest as ingest_room
from yolov7_ray.data.reading.cache import NodeCache
from yolov7_ray.data.reading.dataset import train_loader, ArrowDataset
from yolov7_ray.data.sources.shapes import generate_shape_image
from yolov7_ray.data.ingest.shards import write_shard
from yolov7_ray.data.sources.spec import CocoSource, ShapesSource
from yolov7_ray.data.ingest.spec import IngestSpec

from yolov7.images.config import AugmentConfig
from yolov7.images.augment import augmented_sample, jitter_hsv
from yolov7.images.batch import collate, evaluation_sample
from yolov7.images.sample import decode_image

P5 = AugmentConfig(paste_in=0.15)
KEPT_BYTES, NONE_KEPT = 256e6, 0.0
"""Decoded images to keep: of a large data set without a window, any number is as good as none."""

LOADERS = {
    "p5, partners from everywhere": (replace(P5, partner_window=0), NONE_KEPT),
    "p5, window of 32": (P5, KEPT_BYTES),
    "p5, window of 32, a fifth of nine": (replace(P5, mosaic_nine=0.2), KEPT_BYTES),
    "p5, window of 32, turned by 10 degrees": (replace(P5, rotate_degrees=10), KEPT_BYTES),
    "p5 without mixup, window of 32": (replace(P5, mixup=0), KEPT_BYTES),
    "p5 without paste-in, window of 32": (replace(P5, paste_in=0), KEPT_BYTES),
}


def open_dataset(folder: Path | None, directory: Path) -> ArrowDataset:
    """The folder, or generated shapes, as an Arrow dataset written in this process."""
    source = CocoSource(format="coco", uri=str(folder)) if folder else ShapesSource(
        format="shapes", image_size_px=640, splits={"train": 80})
    ingest_room._run = lambda tasks: map(write_shard, tasks)  # without Ray
    ingest_room.ingest(IngestSpec(kind="ingest", source=source, dataset=str(directory / "dataset")), "bench")
    return ArrowDataset(str(directory / "dataset"), "train", NodeCache(directory / "cache"))


def rate(function: Callable[[int], object], count: int) -> float:
    """Calls of `function(i)` per second of this process's CPU time."""
    start = time.process_time()
    for i in range(count):
        function(i)
    return count / (time.process_time() - start)


def epoch_rate(dataset: ArrowDataset, size_px: int, augment: AugmentConfig, decoded_bytes: float, epoch: int) -> float:
    """Training images per second of CPU time, batches of 32 stacked."""
    steps = train_loader(dataset, size_px=size_px, augment=augment, batch_size=32, seed=0, epoch=epoch, rank=0,
                         world_size=1, decoded_bytes=decoded_bytes)
    start = time.process_time()
    for _ in steps:
        continue
    return len(dataset) / (time.process_time() - start)


def stages(dataset: ArrowDataset, size_px: int) -> dict[str, Callable[[], float]]:
    """Name -> a measurement of its rate."""
    count, rng = len(dataset), np.random.default_rng(0)
    images = [dataset.image_bytes(i) for i in range(count)]
    decoded = [dataset.read(i) for i in range(count)]
    picture = evaluation_sample(decoded[0], size_px)[0]
    table = {f"decode at 1/{reduce}": lambda r=reduce: rate(lambda i: decode_image(images[i], r), count)
             for reduce in (1, 2, 4, 8)}
    table |= {name: lambda a=augment, d=decoded_bytes: epoch_rate(dataset, size_px, a, d, int(rng.integers(1000)))
              for name, (augment, decoded_bytes) in LOADERS.items()}
    table["p5, images decoded"] = lambda: rate(lambda i: augmented_sample(
        lambda j, reduce: decoded[j], range(count), i, size_px, P5, rng, dataset.size_hw), count)
    table["HSV alone"] = lambda: rate(lambda i: jitter_hsv(picture.image, P5, rng), count)
    table["collate"] = lambda: 16 * rate(lambda i: collate([picture] * 16), 10)
    table["evaluation: decode and letterbox"] = lambda: rate(
        lambda i: evaluation_sample(dataset.read(i), size_px), count)
    table["generated shapes, 160 px"] = lambda: rate(lambda i: generate_shape_image(1, i), count)
    return table


def main() -> None:
    """Print a table of stages and rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--size-px", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        dataset = open_dataset(options.folder and options.folder.absolute(), Path(directory))
        table = stages(dataset, options.size_px)
        best = dict.fromkeys(table, 0.0)
        for _ in range(options.rounds):
            best = {name: max(best[name], measure()) for name, measure in table.items()}
    print(f"{len(dataset)} images, output {options.size_px} px, one thread, best of {options.rounds} rounds")
    for name, per_s in best.items():
        print(f"{name:42s} {per_s:8.1f} images/s")


if __name__ == "__main__":
    main()
