"""How long suppression takes on 8 images of 640 px: python tests/bench/bench_nms.py [cpu|cuda]

Beside ours stands the plain way (every candidate sorted and compared in one go), timed on one image, times 8.
Scores follow what a trained detector gives: few strong boxes, clusters around objects, a long weak tail.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from yolov7.evaluation.postprocess import postprocess


def predictions(tail: float, num_images: int = 8, num_boxes: int = 25_200, num_classes: int = 80) -> Tensor:
    """(8, 25200, 85) clustered predictions; the smaller `tail`, the fewer weak candidates."""
    random = np.random.default_rng(0)
    out = np.empty((num_images, num_boxes, 5 + num_classes), np.float32)
    for image in out:
        centers, sizes = random.random((400, 2)) * 640, np.exp(random.uniform(np.log(8), np.log(300), (400, 2)))
        group = random.integers(0, 400, num_boxes)
        image[:, :2] = centers[group] + 0.1 * sizes[group] * random.standard_normal((num_boxes, 2))
        image[:, 2:4] = sizes[group] * np.exp(0.15 * random.standard_normal((num_boxes, 2)))
        image[:, 4] = random.random(num_boxes) ** (3 / tail)
        image[:, 5:] = 0.3 * random.random((num_boxes, num_classes)) ** (6 / tail)
        image[np.arange(num_boxes), 5 + random.integers(0, num_classes, 400)[group]] = random.random(num_boxes)
    return torch.from_numpy(out)


def plain(batch: Tensor) -> list[Tensor]:
    """The textbook form with the same results: all candidates, one sort, one call."""
    detections = []
    for image in batch:
        image = image[image[:, 4] > 0.001]
        scores = image[:, 4:5] * image[:, 5:]
        rows, classes = (scores > 0.001).nonzero(as_tuple=True)
        boxes = torch.cat((image[:, :2] - image[:, 2:4] / 2, image[:, :2] + image[:, 2:4] / 2), 1)[rows]
        values, order = scores[rows, classes].sort(descending=True, stable=True)
        order = order[:30_000]
        boxes, classes, values = boxes[order], classes[order], values[:30_000]
        kept = nms(boxes + classes[:, None] * 4096, values, 0.65)[:300]
        detections.append(torch.cat((boxes[kept], values[kept, None], classes[kept, None]), 1))
    return detections


def median_s(function: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of a call, the first one left out."""
    times_s = []
    for _ in range(repeats + 1):
        start_s = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times_s.append(time.perf_counter() - start_s)
    return statistics.median(times_s[1:])


def main() -> None:
    torch.set_num_threads(1)
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    for name, tail in (("long weak tail", 1.0), ("shorter tail", 0.3), ("short tail", 0.1)):
        batch = predictions(tail).to(device)
        num_candidates = int(((batch[..., 4:5] * batch[..., 5:]) > 0.001).sum()) // len(batch)
        same = all(torch.equal(a, b) for a, b in zip(postprocess(batch[:1]), plain(batch[:1]), strict=True))
        ours_s = median_s(lambda: postprocess(batch))
        plain_s = len(batch) * median_s(lambda: plain(batch[:1]), repeats=1)
        print(
            f"{name}: {num_candidates} candidates per image; ours {ours_s * 1e3:.0f} ms, "
            f"plain {plain_s * 1e3:.0f} ms, {plain_s / ours_s:.1f}x, same rows: {same}",
            flush=True,
        )


if __name__ == "__main__":
    main()
