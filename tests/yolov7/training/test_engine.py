"""Training learns, resumes exactly, and gives the same gradient however a batch is shared."""

import copy

import numpy as np
import pytest
import torch

from yolov7.architectures.family import ARCHITECTURES
from yolov7.images.batch import collate, evaluation_sample, normalize
from yolov7.training.stage_clock import Clock
from yolov7.training.config import EMAConfig
from yolov7.training.engine import add_gradients, evaluate, resolve_precision, train_one_epoch, Diverged
from yolov7.training.freeze import train_mode
from yolov7.criterion.loss import Criterion
from yolov7.criterion.config import LossConfig
from yolov7.evaluation.metrics import CocoEvaluator
from yolov7.training.config import OptimizerConfig
from yolov7.training.schedule import Schedule
from yolov7.model.reparameterize import reparameterize
from yolov7.images.sample import Sample, Truth
from yolov7.training.state import transfer_weights, TrainState

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
    return [[(collate([painted(i) for i in range(num_images)]), num_images)]]


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
    [(batch, _)] = train_batches(1)[0]
    fit = train_one_epoch(state, [[(batch, 0)]], criterion(state))
    assert fit["num_images"] == 0 and fit["train/box"] == 0
    for name, parameter in state.model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def assert_equal_states(one: TrainState, other: TrainState) -> None:
    for (name, a), b in zip(one.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(a, b) for a, b in zip(one.ema.tensors(), other.ema.tensors(), strict=True))
    assert one.ema.num_updates == other.ema.num_updates
    moments, others = (s.optimizer.state_dict()["state"] for s in (one, other))
    assert moments.keys() == others.keys()
    for key, tensors in moments.items():
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(others[key][name]))
                   for name, value in tensors.items())


@pytest.mark.parametrize("algorithm", ["sgd", "adamw"])
def test_a_state_saved_in_the_middle_of_an_epoch_goes_on_bit_for_bit(tmp_path, algorithm):
    steps = [[(collate([painted(i + 4 * k) for i in range(4)]), 4)] for k in range(5)]
    options = {"epochs": 2, "steps_per_epoch": 5, "batch_size": 4, "algorithm": algorithm}
    straight, stopped = build(**options), build(**options)
    rows = [train_one_epoch(straight, steps, criterion(straight)) for _ in range(2)]

    def save_after_two() -> None:
        if stopped.step == 2:
            stopped.save(tmp_path)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_one_epoch(stopped, steps, criterion(stopped), on_update=save_after_two)
    resumed = build(**options, seed=1)
    resumed.load(tmp_path)
    assert (resumed.epoch, resumed.step) == (0, 2)
    again = [train_one_epoch(resumed, steps[2:], criterion(resumed)), train_one_epoch(resumed, steps, criterion(resumed))]
    assert again == rows and rows[0]["num_images"] == 20
    assert_equal_states(straight, resumed)


def test_a_snapshot_stays_as_it_was_while_training_goes_on(tmp_path):
    state = build(epochs=2, steps_per_epoch=1)
    before = {key: value.clone() for key, value in state.model.state_dict().items()}
    snapshot = state.snapshot()
    train_one_epoch(state, train_batches(), criterion(state))
    snapshot.save(tmp_path)
    loaded = build(epochs=2, steps_per_epoch=1, seed=1)
    loaded.load(tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in loaded.model.state_dict().items())
    assert loaded.epoch == 0 and state.epoch == 1


def test_an_update_that_is_not_finite_is_left_out_and_counted():
    clean, spoilt = build(epochs=1, steps_per_epoch=3), build(epochs=1, steps_per_epoch=3)
    images = train_batches()[0]
    poison = [(Poisoned(images[0][0]), 8)]
    train_one_epoch(clean, [images, images], criterion(clean))
    row = train_one_epoch(spoilt, [images, poison, images], criterion(spoilt))
    assert row["skipped_updates"] == 1 and row["num_images"] == 16 and np.isfinite(row["train/box"])
    assert spoilt.skipped_in_a_row == 0 and spoilt.ema.num_updates == 2
    assert all(tensor.isfinite().all() for tensor in [*spoilt.model.state_dict().values(), *spoilt.ema.tensors()])


def test_many_updates_that_are_not_finite_are_a_divergence():
    state = build(epochs=1, steps_per_epoch=5)
    weights = {key: value.clone() for key, value in state.model.state_dict().items()}
    poison = [(Poisoned(train_batches()[0][0][0]), 8)]
    with pytest.raises(Diverged, match="epoch 1, step 3: .*not finite in 3 updates in a row"):
        train_one_epoch(state, [poison] * 5, criterion(state), max_skipped=3)
    after = state.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in weights.items() if "num_batches" not in key)


class Poisoned:
    """A batch whose images are not finite once they are numbers."""

    def __init__(self, batch) -> None:
        self.targets, self.images = batch.targets, torch.full(batch.images.shape, float("nan"))


def test_parts_of_a_batch_add_up_to_its_gradient():
    whole, parted = build(epochs=1, steps_per_epoch=1), build(epochs=1, steps_per_epoch=1)
    for state in (whole, parted):  # so that no image's statistics touch another's
        state.model.apply(lambda module: module.requires_grad_(False) if isinstance(module, torch.nn.BatchNorm2d) else None)
    images = [painted(i) for i in range(4)]
    config = LossConfig(assigner="anchor", objectness_gain=0.0, classification_gain=0.0)
    gradients = []
    for state, parts in ((whole, [images]), (parted, [images[:2], images[2:]])):
        measure = Criterion.for_model(state.model, config)
        network = train_mode(state.model) or state.model
        totals = torch.zeros(4, dtype=torch.float64)
        add_gradients(network, [(collate(part), len(part)) for part in parts], measure, "fp32", totals, True)
        assert totals[-1] == 4
        gradients.append([p.grad for p in state.model.parameters() if p.grad is not None])
    together = torch.cat([g.flatten() for g in gradients[0]])
    apart = torch.cat([g.flatten() for g in gradients[1]])
    assert torch.nn.functional.cosine_similarity(together, apart, dim=0) > 0.9
    assert apart.norm() == pytest.approx(together.norm().item(), rel=0.3)


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
    [(batch, _)] = train_batches(2)[0]
    images = normalize(batch.images)
    assert images.dtype == torch.float32 and 0 <= images.min() and images.max() <= 1
    assert images.is_contiguous(memory_format=torch.channels_last)
