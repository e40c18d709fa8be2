"""A run of training without Ray: its state, its evaluation, and its log, for tests of what it leaves behind."""

import numpy as np
import torch
from training_jobs import train_job

from yolov7.evaluation.metrics import CocoEvaluator
from yolov7.training.state import TrainState
from yolov7_ray.data.reading.dataset import ArrowDataset
from yolov7_ray.evaluate.rank_share import Share, Worker
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.train.build import build_state
from yolov7_ray.train.report import RunLog
from yolov7_ray.train.spec import TrainSpec

ALONE = Worker(0, 1, torch.device("cpu"), 0, "fp32")
COST = {"parameters": 6_000_000, "gflops": 13.7}


def run_log(dataset: str, storage_uri: str, name: str = "run", **changes) -> tuple[RunLog, TrainSpec, TrainState, list[str]]:
    """The log of a new run over a dataset of shapes, its job, its state, and the lines that it prints."""
    spec = validate(train_job(dataset, storage_uri, **changes))
    train_set, val_set = ArrowDataset(dataset, "train"), ArrowDataset(dataset, "val")
    lines: list[str] = []
    log = RunLog(f"{storage_uri}/{name}", spec, train_set, val_set, ALONE, lines.append)
    return log, spec, build_state(spec, train_set, ALONE.device), lines


def found_in(dataset: ArrowDataset, seed: int = 0, skill: float = 0.7) -> Share:
    """Made-up detections in a split: most objects, well or badly placed, some of another class, and some nothing at all."""
    random, evaluator = np.random.default_rng(seed), CocoEvaluator(dataset.classes)
    for index in range(len(dataset)):
        truth = dataset.truth(index)
        height, width = truth.size_hw
        rows = []
        for box, label in zip(truth.boxes_xyxy, truth.labels.tolist()):
            if random.random() < skill:
                moved = box + random.normal(0, 0.06 * width, 4) * (random.random() > skill)
                label = label if random.random() < skill else (label + 1) % len(dataset.classes)
                rows.append([*moved, random.uniform(0.3, 1), label])
        if random.random() > skill:
            x, y = random.uniform(0, width - 20), random.uniform(0, height - 20)
            rows.append([x, y, x + 15, y + 15, random.uniform(0.1, 0.9), 0])
        evaluator.add(truth.image_id, truth.size_hw, truth.boxes_xyxy, truth.labels, truth.iscrowd, truth.area,
                      np.array(rows, np.float32).reshape(-1, 6))
    return Share(evaluator, range(len(dataset)))


def epoch_row(epoch: int, figures: dict | None = None) -> dict:
    """A row of a run's history."""
    return {"epoch": epoch, "train/box": 1 / epoch, "train/objectness": 0.5 / epoch, "train/classification": 0.25 / epoch,
            "num_images": 23, "steps": 3, "skipped_updates": 0, "learning_rate": 0.01 / epoch, "images_per_s": 40.0 + epoch,
            "seconds": {"fetch": 1.0, "step": 4.0, "evaluate/fetch": 0.25, "evaluate/detect": 0.5, "save": 0.125,
                        "fetch/decode": 2.0}} | (figures or {})
