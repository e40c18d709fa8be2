"""Images per second of one core through the sample path, stage by stage.

    python tests/bench/bench_samples.py [FOLDER_OF_JPEGS] [--size-px 640] [--samples 300]

Rates count CPU time, so that other processes on the machine hardly move them. Without a folder, generated shapes at 640 px stand in for photographs (their noise makes large
files, slower to decode than most photographs).
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from yolov7_ray.data.shapes import generate_shape_image

from yolov7.augment import AugmentConfig, augmented_sample, jitter_hsv
from yolov7.batch import collate, evaluation_sample
from yolov7.sample import decode_image, read_sample

RECIPES = {
    "p5 (mosaic, mixup, paste-in)": AugmentConfig(paste_in=0.15),
    "p5 without paste-in": AugmentConfig(),
    "p5 without paste-in, mixup": AugmentConfig(mixup=0),
    "p5 turned by up to 10 degrees": AugmentConfig(rotate_degrees=10),
}


def photo_rows(folder: Path) -> list[dict]:
    """Rows of the folder's JPEGs, each with seven boxes, as many as COCO has on average."""
    rng, rows = np.random.default_rng(0), []
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        data = path.read_bytes()
        height, width = decode_image(data).shape[:2]
        corners = np.sort(rng.random((7, 2, 2)), axis=1).reshape(7, 4)
        rows.append(
            dict(
                image=data, height_px=height, width_px=width, file_name=path.name, image_id=number,
                boxes_xyxy=corners * [width, height, width, height], labels=np.arange(7),
                iscrowd=np.zeros(7, bool), area=np.ones(7),
            )
        )
    return rows


def rate(function, count: int) -> float:
    """Calls of `function(i)` per second of this process's CPU time, after a short warm-up."""
    for i in range(min(count, 10)):
        function(i)
    start = time.process_time()
    for i in range(count):
        function(i)
    return count / (time.process_time() - start)


def main() -> None:
    """Print a table of stages and rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--size-px", type=int, default=640)
    parser.add_argument("--samples", type=int, default=300)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    if options.folder:
        rows = photo_rows(options.folder)
    else:
        rows = [generate_shape_image(0, i, size_px=640) for i in range(64)]
    size_px, rng = options.size_px, np.random.default_rng(0)

    def read(index: int, reduce: int = 1):
        return read_sample(**rows[index], reduce=reduce)

    def size_hw(index: int):
        return rows[index]["height_px"], rows[index]["width_px"]

    print(f"{len(rows)} images, output {size_px} px, one thread")
    for reduce in (1, 2, 4, 8):
        per_s = rate(lambda i, r=reduce: read(i % len(rows), r), options.samples)
        print(f"{'decode at 1/' + str(reduce):40s} {per_s:8.1f} images/s")
    for name, config in RECIPES.items():
        per_s = rate(
            lambda i, c=config: augmented_sample(
                read, len(rows), i % len(rows), size_px, c, rng, size_hw
            ),
            options.samples,
        )
        print(f"{name:40s} {per_s:8.1f} images/s")
    decoded = [read(i) for i in range(len(rows))]
    per_s = rate(
        lambda i: augmented_sample(
            lambda j: decoded[j], len(rows), i % len(rows), size_px, RECIPES["p5 without paste-in"], rng
        ),
        options.samples,
    )
    print(f"{'p5 without paste-in, images decoded':40s} {per_s:8.1f} images/s")
    picture = evaluation_sample(decoded[0], size_px)[0]
    per_s = rate(lambda i: jitter_hsv(picture.image, AugmentConfig(), rng), options.samples)
    print(f"{'HSV alone':40s} {per_s:8.1f} images/s")
    per_s = 16 * rate(lambda i: collate([picture] * 16), 10)
    print(f"{'collate':40s} {per_s:8.1f} images/s")
    per_s = rate(lambda i: evaluation_sample(read(i % len(rows)), size_px), options.samples)
    print(f"{'evaluation: decode and letterbox':40s} {per_s:8.1f} images/s")
    per_s = rate(lambda i: generate_shape_image(1, i), options.samples)
    print(f"{'generated shapes, 160 px':40s} {per_s:8.1f} images/s")


if __name__ == "__main__":
    main()
