"""How long COCO evaluation takes on 5000 images and 500 000 detections: python tests/bench/bench_metrics.py"""

import time

import numpy as np

from yolov7.evaluation.metrics import CocoEvaluator

NUM_IMAGES, NUM_TRUTH, NUM_DETECTIONS, NUM_CLASSES = 5000, 7, 100, 80


def main() -> None:
    random = np.random.default_rng(0)
    images = []
    for image_id in range(NUM_IMAGES):
        truth_xy, truth_wh = random.random((NUM_TRUTH, 2)) * 400, np.exp(random.uniform(2, 5, (NUM_TRUTH, 2)))
        truth = np.concatenate((truth_xy, truth_xy + truth_wh), axis=1)
        labels = random.integers(0, NUM_CLASSES, NUM_TRUTH)
        source = random.integers(0, NUM_TRUTH, NUM_DETECTIONS)
        boxes = truth[source] + random.normal(0, 6, (NUM_DETECTIONS, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        guesses = random.integers(0, NUM_CLASSES, NUM_DETECTIONS)
        classes = np.where(random.random(NUM_DETECTIONS) < 0.5, labels[source], guesses)
        detections = np.concatenate((boxes, random.random((NUM_DETECTIONS, 1)), classes[:, None]), axis=1)
        iscrowd = random.random(NUM_TRUTH) < 0.01
        images.append((image_id, (480, 640), truth, labels, iscrowd, truth_wh.prod(1), detections))

    names = [str(c) for c in range(NUM_CLASSES)]
    start_s = time.perf_counter()
    evaluators = [CocoEvaluator(names) for _ in range(4)]
    for i, image in enumerate(images):
        evaluators[i % 4].add(*image)
    added_s = time.perf_counter()
    states = [evaluator.state() for evaluator in evaluators]
    gathered_s = time.perf_counter()
    metrics = CocoEvaluator.merged(names, states).compute()
    done_s = time.perf_counter()
    megabytes = sum(column.nbytes for state in states for column in state.values()) / 1e6
    print(
        f"{metrics.num_images} images, {metrics.num_detections} detections, AP {metrics.ap:.4f}: "
        f"add {added_s - start_s:.2f} s, state of 4 ranks {gathered_s - added_s:.2f} s ({megabytes:.1f} MB), "
        f"merge and compute {done_s - gathered_s:.2f} s, in all {done_s - start_s:.2f} s"
    )


if __name__ == "__main__":
    main()
