"""It learns: every kind of model of the family gets eight images by heart.

The tiny model, the P5 model with RepConv, the P6 model with its auxiliary head, and E-ELAN with the partial one;
each scaled down, each with its own criterion, in well under a minute on one core.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from yolov7.architectures.family import architecture
from yolov7.images.batch import collate, evaluation_sample
from yolov7.training.config import EMAConfig
from yolov7.training.engine import evaluate, train_one_epoch
from yolov7.criterion.loss import Criterion
from yolov7.criterion.config import LossConfig
from yolov7.evaluation.metrics import CocoEvaluator
from yolov7.training.config import OptimizerConfig
from yolov7.training.schedule import Schedule
from yolov7.images.sample import Sample, Truth
from yolov7.training.state import TrainState

NUM_IMAGES = 8
STEPS_PER_EPOCH = 10
CLASSES = ["red", "green"]
COLOURS = ((220, 40, 40), (40, 200, 60))


def painted(index: int, size_px: int) -> Sample:
    """Two or three flat rectangles on noise, each in its own quarter; the colour is the class."""
    rng = np.random.default_rng(index)
    image = rng.integers(90, 130, (size_px, size_px, 3), np.uint8)
    quarter = size_px // 2
    boxes, labels = [], []
    for slot in range(2 + index % 2):
        width, height = rng.integers(quarter * 3 // 8, quarter * 7 // 8, 2)
        x = quarter * (slot % 2) + rng.integers(0, quarter - width + 1)
        y = quarter * (slot // 2) + rng.integers(0, quarter - height + 1)
        label = int(rng.integers(0, len(CLASSES)))
        image[y:y + height, x:x + width] = COLOURS[label]
        boxes.append((x, y, x + width, y + height))
        labels.append(label)
    boxes_xyxy = np.array(boxes, np.float32)
    area = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    return Sample(image, boxes_xyxy, np.array(labels), np.zeros(len(boxes), bool), area, None, index, f"{index}.png",
                  (size_px, size_px))


def truth(sample: Sample) -> Truth:
    return Truth(sample.image_id, sample.file_name, sample.original_size_hw, sample.boxes_xyxy, sample.labels,
                 sample.iscrowd, sample.area)


@dataclass(frozen=True)
class Run:
    """How long and how a model is trained."""

    epochs: int
    size_px: int = 64
    depth: float | None = 0.33
    box_gain: float = 0.2
    objectness_gain: float = 2.0


RUNS = {
    "yolov7-tiny": Run(epochs=6, depth=None),
    "yolov7": Run(epochs=9),
    "yolov7-w6": Run(epochs=7, size_px=128),
    "yolov7-e6e": Run(epochs=10, box_gain=0.1, objectness_gain=4.0),
}


def build(name: str, run: Run) -> TrainState:
    """The scaled-down model: its anchors follow the image size, its batch statistics so short a training."""
    torch.manual_seed(0)
    base = architecture(name).scaled(depth=run.depth, width=0.25)
    shrink = 2 * run.size_px / base.default_image_size_px
    anchors_px = tuple(tuple((w * shrink, h * shrink) for w, h in level) for level in base.anchors_px)
    optimizer = OptimizerConfig("adamw", learning_rate=0.005, final_learning_rate_ratio=0.02, momentum=0.9,
                                warmup_epochs=1, warmup_bias_learning_rate=0.0)
    schedule = Schedule(optimizer, run.epochs, STEPS_PER_EPOCH, NUM_IMAGES, NUM_IMAGES)
    state = TrainState.build(base.replace(anchors_px=anchors_px), CLASSES, schedule, EMAConfig())
    for module in state.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3
    return state


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_eight_images_are_learnt_by_heart(name):
    run = RUNS[name]
    samples = [painted(index, run.size_px) for index in range(NUM_IMAGES)]
    state = build(name, run)
    assert state.model.architecture.has_auxiliary == (name in ("yolov7-w6", "yolov7-e6e"))
    criterion = Criterion.for_model(state.model, LossConfig(
        box_gain=run.box_gain, objectness_gain=run.objectness_gain, classification_gain=0.5))
    batch = collate(samples)
    for _ in range(run.epochs):
        train_one_epoch(state, [[(batch, NUM_IMAGES)]] * STEPS_PER_EPOCH, criterion)
    fitted, letterboxes = zip(*(evaluation_sample(sample, run.size_px) for sample in samples))
    metrics = evaluate(state.ema.model, [collate(fitted, letterboxes)], map(truth, samples),
                       CocoEvaluator(CLASSES)).compute()
    assert metrics.num_images == NUM_IMAGES
    assert metrics.ap50 > 0.95, metrics.to_dict()["overall"]
