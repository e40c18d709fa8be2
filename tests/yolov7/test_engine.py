"""Training learns, resumes exactly, and gives the same gradient however a batch is shared."""

import copy

import numpy as np
import pytest
import torch

from yolov7.architectures import ARCHITECTURES
from yolov7.batch import collate, evaluation_sample, normalize
from yolov7.clock import Clock
from yolov7.ema import EMAConfig
from yolov7.engine import evaluate, resolve_precision, train_one_epoch
from yolov7.loss import Criterion, LossConfig
from yolov7.metrics import CocoEvaluator
from yolov7.optim import OptimizerConfig, Schedule
from yolov7.reparameterize import reparameterize
from yolov7.sample import Sample, Truth
from yolov7.state import TrainState, transfer_weights

SIZE_PX = 96
CLASSES = ["red", "green"]
TINY = ARCHITECTURES["yolov7-tiny"].scaled(depth=1.0, width=0.25)


def painted(index: int) -> Sample:
    """A grey image with two or three flat rectangles whose colour is their class."""
    rng = np.random.default_rng(index)
    image = rng.integers(90, 130, (SIZE_PX, SIZE_PX, 3), np.uint8)
    boxes, labels = [], []
    for slot in range(2 + index % 2):
        w, h = rng.integers(20, 40, 2)
        x, y = rng.integers(0, 48 - w // 2 + 1), rng.integers(0, 48 - h // 2 + 1)
        x, y = x + 48 * (slot % 2) - (w // 2 if slot % 2 else 0), y + (48 - h // 2) * (slot // 2)
        label = int(rng.integers(0, 2))
        image[y:y + h, x:x + w] = (220, 40, 40) if label == 0 else (40, 200, 60)
        boxes.append((x, y, x + w, y + h))
        labels.append(label)
    boxes = np.clip(np.array(boxes, np.float32), 0, SIZE_PX)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Sample(image, boxes, np.array(labels), np.zeros(len(boxes), bool), area, None, index, f"{index}.png",
                  (SIZE_PX, SIZE_PX))


def evaluation_batches(num_images: int, batch_size: int = 4):
    boxed = [evaluation_sample(painted(i), SIZE_PX) for i in range(num_images)]
    for first in range(0, num_images, batch_size):
        part = boxed[first:first + batch_size]
        yield collate([s for s, _ in part], [box for _, box in part])


def truths(num_images: int):
    for i in range(num_images):
        s = painted(i)
        yield Truth(s.image_id, s.file_name, (SIZE_PX, SIZE_PX), s.boxes_xyxy, s.labels, s.iscrowd, s.area)


def build(epochs: int, steps_per_epoch: int, batch_size: int = 8, seed: int = 0, **optimizer) -> TrainState:
    torch.manual_seed(seed)
    plan = Schedule(OptimizerConfig(**optimizer), epochs, steps_per_epoch, batch_size, batch_size)
    return TrainState.build(TINY, CLASSES, plan, EMAConfig())


def criterion(state: TrainState) -> Criterion:
    config = LossConfig().scaled_to(len(CLASSES), 3, SIZE_PX)
    return Criterion.for_model(state.model, config)


def train_batches(num_images: int = 8):
    return [(collate([painted(i) for i in range(num_images)]), num_images)]


def test_a_saved_state_goes_on_bit_for_bit(tmp_path):
    straight = build(epochs=4, steps_per_epoch=2)
    stopped = build(epochs=4, steps_per_epoch=2)
    batches = train_batches() * 2
    for _ in range(2):
        train_one_epoch(straight, batches, criterion(straight))
        train_one_epoch(stopped, batches, criterion(stopped))
    stopped.history.append({"epoch": 2, "ap": 0.5})
    stopped.save(tmp_path)
    resumed = build(epochs=4, steps_per_epoch=2, seed=1)
    resumed.load(tmp_path)
    assert resumed.history == stopped.history and resumed.epoch == 2
    for _ in range(2):
        train_one_epoch(straight, batches, criterion(straight))
        train_one_epoch(resumed, batches, criterion(resumed))
    for (name, one), other in zip(straight.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(one, other), name
    assert all(torch.equal(a, b) for a, b in zip(straight.ema.tensors(), resumed.ema.tensors()))
    assert resumed.ema.num_updates == straight.ema.num_updates == 8


def test_a_share_of_no_images_changes_nothing():
    state = build(epochs=1, steps_per_epoch=1)
    before = copy.deepcopy(dict(state.model.named_parameters()))
    state.optimizer.param_groups[0]["weight_decay"] = 0.0
    batch, _ = train_batches(1)[0]
    fit = train_one_epoch(state, [(batch, 0)], criterion(state))
    assert fit["num_images"] == 0 and fit["train/box"] == 0
    for name, parameter in state.model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_a_loss_that_is_not_finite_stops_with_advice():
    state = build(epochs=1, steps_per_epoch=1)
    with torch.no_grad():
        next(state.model.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="optimizer.learning_rate"):
        train_one_epoch(state, train_batches(2), criterion(state))


def test_a_checkpoint_of_another_architecture_is_refused_and_says_what_differs(tmp_path):
    build(epochs=1, steps_per_epoch=1).save(tmp_path)
    other = TrainState.build(TINY.scaled(width=0.5), CLASSES, build(1, 1).schedule, EMAConfig())
    with pytest.raises(ValueError, match="another architecture.*of another shape.*model.architecture"):
        other.load(tmp_path)


def test_a_checkpoint_for_other_classes_is_refused(tmp_path):
    build(epochs=1, steps_per_epoch=1).save(tmp_path)
    other = TrainState.build(TINY, ["cat", "dog"], build(1, 1).schedule, EMAConfig())
    with pytest.raises(ValueError, match=r"classes \['red', 'green'\], the dataset has \['cat', 'dog'\]"):
        other.load(tmp_path)


def test_weights_of_another_class_count_are_transferred_but_for_the_head():
    source, target = build(1, 1), TrainState.build(TINY, ["a", "b", "c"], build(1, 1).schedule, EMAConfig())
    moved = transfer_weights(target.model, source.model.state_dict())
    assert len(target.model.state_dict()) > moved > 0.9 * len(target.model.state_dict())
    for (name, value), before in zip(target.model.state_dict().items(), source.model.state_dict().values()):
        assert torch.equal(value, before) if value.shape == before.shape else "predictors" in name, name
    with pytest.raises(ValueError, match="model.weights: only"):
        transfer_weights(target.model, {"something.else": torch.zeros(1)})
    with pytest.raises(ValueError, match="model.weights: are folded.*give the run or checkpoint"):
        transfer_weights(target.model, reparameterize(source.model).state_dict())


def test_truths_out_of_step_are_no_measurement():
    state = build(1, 1)
    with pytest.raises(AssertionError, match="truth 3 met image 0: they are out of step"):
        evaluate(state.ema.model, evaluation_batches(4), reversed(list(truths(4))), CocoEvaluator(CLASSES))


def test_precision_and_clock():
    assert resolve_precision("fp32", torch.device("cpu")) == "fp32"
    assert resolve_precision("auto", torch.device("cpu")) in ("fp32", "bf16")
    clock = Clock()
    assert list(clock.over("fetch", range(3))) == [0, 1, 2]
    with clock("step"):
        sum(range(1000))
    assert set(clock.shares()) == {"fetch", "step"} and sum(clock.shares().values()) == pytest.approx(1)


def test_bf16_trains_close_to_fp32():
    losses = []
    for precision in ("fp32", "bf16"):
        state = build(epochs=3, steps_per_epoch=2)
        for _ in range(3):
            fit = train_one_epoch(state, train_batches() * 2, criterion(state), precision=precision)
        losses.append(fit["train/objectness"] + fit["train/box"])
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_normalize_gives_channels_last_floats_in_unit_range():
    batch, _ = train_batches(2)[0]
    images = normalize(batch.images)
    assert images.dtype == torch.float32 and 0 <= images.min() and images.max() <= 1
    assert images.is_contiguous(memory_format=torch.channels_last)
