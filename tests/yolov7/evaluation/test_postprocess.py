"""Suppression against the goldens, against a plain oracle, and on inputs that are out of the ordinary."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from yolov7.evaluation.postprocess import postprocess

MODULE = import_module("yolov7.evaluation.postprocess")  # the package offers the function under the same name

GOLDENS = np.load(Path(__file__).parents[2] / "goldens" / "nms.npz")
CASES = [
    (confidence, iou, multi_label, agnostic)
    for confidence, iou in ((0.001, 0.65), (0.25, 0.45))
    for multi_label in (False, True)
    for agnostic in (False, True)
]


@pytest.fixture(scope="module")
def golden_input() -> Tensor:
    """(2, 2000, 85): clusters of ten boxes, drawn as the reference's README says."""
    random = np.random.default_rng(2)
    images = []
    for _ in range(2):
        centers = random.random((200, 2)) * 640
        sizes = np.exp(random.uniform(np.log(8), np.log(300), (200, 2)))
        classes = random.integers(0, 80, 200)
        group = np.repeat(np.arange(200), 10)
        xy = centers[group] + 0.1 * sizes[group] * random.standard_normal((2000, 2))
        wh = sizes[group] * np.exp(0.15 * random.standard_normal((2000, 2)))
        objectness = random.random(2000) ** 3
        probabilities = 0.3 * random.random((2000, 80)) ** 6
        probabilities[np.arange(2000), classes[group]] = random.random(2000)
        images.append(np.concatenate((xy, wh, objectness[:, None], probabilities), axis=1))
    predictions = torch.from_numpy(np.stack(images).astype(np.float32))
    assert predictions.double().sum().item() == pytest.approx(float(GOLDENS["input_sum"]), rel=1e-12)
    return predictions


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "all-at-once"])
@pytest.mark.parametrize(("confidence", "iou", "multi_label", "agnostic"), CASES)
def test_rows_are_identical_to_the_goldens(golden_input, monkeypatch, confidence, iou, multi_label, agnostic, lazy):
    if not lazy:
        monkeypatch.setattr(MODULE, "NUM_FIRST_ROWS", 10**9)
    found = postprocess(golden_input, confidence, iou, multi_label, agnostic)
    for i, detections in enumerate(found):
        key = f"conf{confidence}_iou{iou}_ml{int(multi_label)}_agn{int(agnostic)}_{i}"
        rows = GOLDENS[key]
        assert len(detections) == GOLDENS[f"{key}_kept"]
        assert np.array_equal(detections[: len(rows)].numpy(), rows)
        np.testing.assert_allclose(detections.double().sum(0).numpy(), GOLDENS[f"{key}_sum"], rtol=1e-12)


def test_some_classes_alone(golden_input):
    """The reference can filter by best class; hiding those rows from ours must come to the same."""
    wanted = torch.isin(golden_input[..., 5:].argmax(-1), torch.tensor([0, 5, 17]))
    predictions = golden_input * wanted[..., None]
    for i, detections in enumerate(postprocess(predictions, 0.25, 0.45, multi_label=False)):
        assert len(detections) == GOLDENS[f"classes_0_5_17_{i}_kept"]
        assert np.array_equal(detections.numpy(), GOLDENS[f"classes_0_5_17_{i}"])


def test_one_class_counts_by_objectness_alone(golden_input):
    for i, detections in enumerate(postprocess(golden_input[:, :, :6], 0.25, 0.45)):
        rows = GOLDENS[f"single_class_{i}"]
        assert len(detections) == GOLDENS[f"single_class_{i}_kept"]
        assert np.array_equal(detections[: len(rows)].numpy(), rows)
        assert set(detections[:, 5].tolist()) == {0.0}


def oracle(image: Tensor, confidence: float, iou: float, max_detections: int) -> Tensor:
    """One box at a time, in float64, class by class."""
    image = image.double()
    scores = (image[:, 4:5] * image[:, 5:]).float()
    rows, classes = (scores > confidence).nonzero(as_tuple=True)
    order = scores[rows, classes].sort(descending=True, stable=True).indices
    kept: list[tuple[float, ...]] = []
    for row, label in zip(rows[order].tolist(), classes[order].tolist()):
        cx, cy, w, h = image[row, :4].tolist()
        box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        if all(label != other[5] or iou_of(box, other) <= iou for other in kept):
            kept.append((*box, scores[row, label].item(), label))
    return torch.tensor(kept[:max_detections], dtype=torch.float64).reshape(-1, 6)


def iou_of(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def random_predictions(seed: int, num_boxes: int, num_classes: int, size_px: float = 640.0) -> Tensor:
    random = np.random.default_rng(seed)
    centers, group = random.random((12, 2)) * size_px, random.integers(0, 12, num_boxes)
    xy = centers[group] + random.normal(0, size_px / 60, (num_boxes, 2))
    wh = random.uniform(0.1, 0.2, (num_boxes, 2)) * size_px
    scores = random.random((num_boxes, 1 + num_classes))
    return torch.from_numpy(np.concatenate((xy, wh, scores), axis=1).astype(np.float32))


@pytest.mark.parametrize("size_px", [640.0, 20_000.0], ids=["usual", "wider than a plane"])
@pytest.mark.parametrize("num_classes", [2, 7, 1500])
@pytest.mark.parametrize("max_detections", [5, 300])
def test_agrees_with_one_box_at_a_time(monkeypatch, num_classes, size_px, max_detections):
    monkeypatch.setattr(MODULE, "NUM_FIRST_ROWS", 16)
    monkeypatch.setattr(MODULE, "CHUNK", 10)
    predictions = random_predictions(num_classes, 60, num_classes, size_px)
    threshold = 0.3 if num_classes < 100 else 0.9
    [found] = postprocess(predictions[None], threshold, 0.5, max_detections=max_detections)
    expected = oracle(predictions, threshold, 0.5, max_detections)
    assert len(expected) == max_detections or max_detections == 300
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-2 * size_px / 640)


def test_small_boxes_of_a_late_class_are_not_rounded_apart():
    predictions = torch.zeros(1, 2, 5 + 1500)
    predictions[0, :, :5] = torch.tensor([[11.2, 11.0, 2.0, 2.0, 0.9], [11.3, 11.0, 2.0, 2.0, 0.8]])
    predictions[0, :, -1] = 1.0
    assert len(postprocess(predictions)[0]) == 1  # they overlap by 0.9; in steps of half a pixel by 0.6


def test_at_most_max_candidates_enter():
    predictions = random_predictions(0, 400, 3)
    [all_found] = postprocess(predictions[None], 0.0, 1.0, max_detections=10_000)
    [few] = postprocess(predictions[None], 0.0, 1.0, max_detections=10_000, max_candidates=50)
    assert len(all_found) == 1200 and torch.equal(few, all_found[:50])


def test_equal_scores_keep_the_order_of_predictions():
    predictions = torch.tensor([[[100.0 * i, 50, 20, 20, 0.5, 1.0] for i in range(8)]])
    [found] = postprocess(predictions, max_detections=3)
    assert found[:, 0].tolist() == [-10.0, 90.0, 190.0]


@pytest.mark.parametrize("shape", [(2, 0, 7), (2, 5, 7), (0, 5, 7), (2, 5, 6)])
def test_nothing_found_is_empty(shape):
    found = postprocess(torch.zeros(shape))
    assert [tuple(detections.shape) for detections in found] == [(0, 6)] * shape[0]


def test_threshold_is_strict():
    predictions = torch.tensor([[[50.0, 50, 20, 20, 0.5, 1.0, 0.0]]])
    assert [len(postprocess(predictions, threshold)[0]) for threshold in (0.5, 0.49)] == [0, 1]


def test_bfloat16_is_taken():
    predictions = random_predictions(3, 50, 4)[None].bfloat16()
    [found] = postprocess(predictions, 0.3)
    assert found.dtype == torch.float32
    assert torch.equal(found, postprocess(predictions.float(), 0.3)[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("agnostic", [False, True])
def test_cuda_finds_what_the_cpu_finds(golden_input, agnostic):
    found = postprocess(golden_input.cuda(), class_agnostic=agnostic)
    for on_cuda, on_cpu in zip(found, postprocess(golden_input, class_agnostic=agnostic)):
        torch.testing.assert_close(on_cuda.cpu(), on_cpu)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("column", [0, 2, 4, 5, 7])
def test_rows_that_are_not_finite_are_dropped(bad, column):
    predictions = random_predictions(4, 40, 4)[None]
    clean = postprocess(predictions[:, 1:])[0]
    predictions[0, 0, column] = bad
    assert torch.equal(postprocess(predictions)[0], clean)


def test_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"shape \(5, 85\) does not fit"):
        postprocess(torch.zeros(5, 85))
    with pytest.raises(ValueError, match="iou_threshold: 65 is out of range"):
        postprocess(torch.zeros(1, 5, 85), iou_threshold=65)
