"""Measures the actor of `predict`: rectangles against squares in turn, and the memory that large pictures take.

    python tests/bench/bench_predict.py MODEL.safetensors IMAGES [--size 640] [--rounds 3]

CPU seconds of this process and images per CPU second, for each of the two; then how far the boxes of confident
detections lie apart. Memory is that of the process, beyond what it held before the first image.
"""

import argparse
import os
import threading
import time
from pathlib import Path
from sys import path as python_path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
python_path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "tests/yolov7_ray")]

from memory import private_mb  # noqa: E402

from yolov7_ray.predict.images import FolderImages  # noqa: E402
from yolov7_ray.predict.predictor import Predictor  # noqa: E402
from yolov7_ray.predict.spec import PredictSpec  # noqa: E402
from yolov7_ray.registry.model_source import locate  # noqa: E402

CONFIDENT = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    images, source = FolderImages(args.images), locate(args.model)
    indices = pa.table({"index": range(len(images))})
    predictors = {rectangular: Predictor(images, source, PredictSpec(
        kind="predict", model=args.model, images=args.images, output="unused", image_size_px=args.size,
        batch_size=args.batch, rectangular=rectangular, multi_label=False)) for rectangular in (False, True)}
    rows = {}
    for _ in range(args.rounds):
        for rectangular, predictor in predictors.items():
            with Peak() as peak:
                started = time.process_time(), time.monotonic()
                rows[rectangular] = pa.concat_tables(predictor(indices)).to_pylist()
                cpu_s, wall_s = time.process_time() - started[0], time.monotonic() - started[1]
            print(f"{'rectangles' if rectangular else 'squares':>10}  {cpu_s:7.2f} CPU s  {wall_s:7.2f} s  "
                  f"{len(images) / cpu_s:7.1f} images per CPU s  {peak.added_mb:6.0f} MB more", flush=True)
    compare(rows[False], rows[True])


class Peak:
    """The private memory that this process takes beyond what it held before."""

    def __enter__(self) -> "Peak":
        self._base_mb, self.added_mb, self._stop = private_mb(os.getpid()), 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.added_mb = max(self.added_mb, private_mb(os.getpid()) - self._base_mb)

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()


def compare(squares: list[dict], rectangles: list[dict]) -> None:
    """How many confident detections have a partner of the same class, and how far its sides lie away."""
    distances_px, alone = [], 0
    for one, other in zip(squares, rectangles, strict=True):
        boxes, labels = (np.array(other[key]) for key in ("boxes_xyxy", "labels"))
        for box, score, label in zip(one["boxes_xyxy"], one["scores"], one["labels"]):
            same = boxes[labels == label] if len(boxes) else boxes
            if score >= CONFIDENT:
                distance = np.abs(same - box).max(axis=1).min() if len(same) else np.inf
                distances_px += [distance] if distance < np.inf else []
                alone += distance == np.inf
    median, ninetieth, worst = np.percentile(distances_px, [50, 90, 100])
    print(f"{len(distances_px)} detections of at least {CONFIDENT}: sides {median:.2f} px apart (median), "
          f"{ninetieth:.2f} (90 %), {worst:.1f} (worst); {alone} without a partner")


if __name__ == "__main__":
    main()
