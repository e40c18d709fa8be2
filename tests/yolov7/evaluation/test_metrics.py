"""Average precision bit for bit as pycocotools computes it, and everything reported beside it."""

import contextlib
import io
import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolov7.evaluation.metrics import CocoEvaluator, Metrics

FIGURES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)


@dataclass
class Image:
    image_id: int
    truth_boxes_xyxy: np.ndarray
    truth_labels: np.ndarray
    truth_iscrowd: np.ndarray
    truth_area: np.ndarray
    detections: np.ndarray

    def arguments(self) -> tuple:
        return (
            *(self.image_id, (480, 640), self.truth_boxes_xyxy, self.truth_labels),
            *(self.truth_iscrowd, self.truth_area, self.detections),
        )


def boxes(random: np.random.Generator, count: int) -> np.ndarray:
    xy, wh = random.random((count, 2)) * 400, np.exp(random.uniform(np.log(8), np.log(200), (count, 2)))
    return np.concatenate((xy, xy + wh), axis=1).astype(np.float32)


def random_images(
    seed: int,
    num_images: int = 20,
    num_classes: int = 5,
    crowd: float = 0.15,
    max_truth: int = 9,
    max_detections: int = 160,
    score_steps: int = 40,
) -> list[Image]:
    """Shuffled ids, crowds, images without objects or detections, the last class without objects, tied scores."""
    random = np.random.default_rng(seed)
    images = []
    for image_id in random.permutation(10 * num_images)[:num_images].tolist():
        truth = boxes(random, random.integers(0, max_truth + 1))
        labels = random.integers(0, max(1, num_classes - 1), len(truth))
        count = random.integers(0, max_detections + 1)
        found, classes = boxes(random, count), random.integers(0, num_classes, count)
        if len(truth):
            near = random.integers(0, len(truth), count)
            follows = random.random(count) < 0.7
            found[follows] = (truth[near] + random.normal(0, 5, (count, 4)))[follows]
            classes[follows] = labels[near][follows]
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        scores = np.round(random.random(count) * score_steps) / score_steps
        detections = np.concatenate((found, scores[:, None], classes[:, None]), axis=1).astype(np.float32)
        area = ((truth[:, 2:] - truth[:, :2]).prod(1) * random.uniform(0.5, 1, len(truth))).astype(np.float32)
        images.append(Image(image_id, truth, labels, random.random(len(truth)) < crowd, area, detections))
    return images


def evaluated(images: list[Image], num_classes: int) -> Metrics:
    evaluator = CocoEvaluator([f"class {c}" for c in range(num_classes)])
    for image in images:
        evaluator.add(*image.arguments())
    return evaluator.compute()


def xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = box.astype(np.float64).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def oracle(images: list[Image], num_classes: int) -> COCOeval:
    """pycocotools on the same boxes, in the dicts of a COCO annotation file."""
    annotations = [
        {
            "image_id": image.image_id,
            "category_id": int(image.truth_labels[i]) + 1,
            "bbox": xywh(image.truth_boxes_xyxy[i]),
            "area": float(image.truth_area[i]),
            "iscrowd": int(image.truth_iscrowd[i]),
        }
        for image in images
        for i in range(len(image.truth_labels))
    ]
    results = [
        {
            "image_id": image.image_id,
            "category_id": int(row[5]) + 1,
            "bbox": xywh(row[:4]),
            "score": float(row[4]),
        }
        for image in images
        for row in image.detections
    ]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image.image_id, "height": 480, "width": 640} for image in images],
        "annotations": [{"id": i + 1} | annotation for i, annotation in enumerate(annotations)],
        "categories": [{"id": c + 1, "name": f"class {c}"} for c in range(num_classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


CASES = {
    "usual": {},
    "one class": {"num_classes": 1},
    "many classes": {"num_classes": 60},
    "only crowds": {"crowd": 1.0},
    "no crowds": {"crowd": 0.0},
    "no objects": {"max_truth": 0},
    "distinct scores": {"score_steps": 10**9},
    "all scores tied": {"score_steps": 1},
    "more than 100 detections of a class": {"num_classes": 2, "max_detections": 400},
}


@pytest.mark.parametrize("case", CASES)
def test_the_twelve_figures_are_pycocotools_to_the_last_bit(case):
    arguments = {"num_classes": 5} | CASES[case]
    for seed in range(3):
        images = random_images(seed, **arguments)
        metrics, expected = evaluated(images, arguments["num_classes"]), oracle(images, arguments["num_classes"])
        figures = [getattr(metrics, name) for name in FIGURES]
        assert [-1.0 if figure is None else figure for figure in figures] == expected.stats.tolist()
        precision = expected.eval["precision"][0, :, :, 0, 2].T
        assert np.array_equal(np.nan_to_num(metrics.pr_curves.precision, nan=-1.0), precision)
        assert np.array_equal(metrics.pr_curves.recall, expected.params.recThrs)
        for c, of_class in enumerate(metrics.per_class.values()):
            values = expected.eval["precision"][:, :, c, 0, 2]
            assert of_class.ap == (None if (values == -1).all() else values.mean())


def test_a_class_without_objects_is_undefined_and_leaves_the_mean_alone():
    images = random_images(0)
    metrics = evaluated(images, 5)
    unseen = metrics.per_class["class 4"]
    assert unseen.num_truth == 0 and unseen.ap is None and unseen.f1 is None
    assert np.isnan(metrics.pr_curves.precision[4]).all()
    others = [of_class.ap for of_class in metrics.per_class.values() if of_class.ap is not None]
    assert metrics.ap == pytest.approx(np.mean(others)) and len(others) == 4


def test_perfect_detections():
    images = random_images(1, crowd=0.0, max_truth=4)
    for image in images:
        image.detections = np.concatenate(
            (image.truth_boxes_xyxy, np.full((len(image.truth_labels), 1), 0.9), image.truth_labels[:, None]), axis=1
        )
    metrics = evaluated(images, 5)
    assert (metrics.ap, metrics.ar100) == (1.0, 1.0)
    best = metrics.per_class["class 0"]
    assert (best.precision, best.recall, best.f1) == (1.0, 1.0, 1.0) and best.confidence == pytest.approx(0.9)
    assert metrics.confusion.sum() == np.trace(metrics.confusion) == metrics.num_objects


def test_best_f1_is_an_operating_point():
    """Objects 1 of 2 found at confidence 0.8, both at 0.6 with one false alarm between: P 2/3, R 1, F1 0.8."""
    truth = np.array([[0, 0, 50, 50], [100, 100, 150, 150]], np.float32)
    elsewhere = [300, 300, 350, 350]
    found = np.array([[*truth[0], 0.8, 0], [*elsewhere, 0.7, 0], [*truth[1], 0.6, 0], [*elsewhere, 0.1, 0]], np.float32)
    image = Image(1, truth, np.zeros(2, int), np.zeros(2, bool), np.full(2, 2500.0), found)
    best = evaluated([image], 1).per_class["class 0"]
    assert best.precision == pytest.approx(2 / 3) and best.recall == pytest.approx(1.0)
    assert best.f1 == pytest.approx(0.8) and best.confidence == pytest.approx(0.6)


def confusion_oracle(images: list[Image], num_classes: int) -> np.ndarray:
    """From the best score down, each detection takes the free object, of any class, that it overlaps most."""
    matrix = np.zeros((num_classes + 1, num_classes + 1), int)
    for image in images:
        objects = [i for i in range(len(image.truth_labels)) if not image.truth_iscrowd[i]]
        detections = image.detections[image.detections[:, 4] >= 0.25]
        free = set(objects)
        for row in detections[np.argsort(-detections[:, 4], kind="stable")]:
            overlaps = {i: iou(row[:4], image.truth_boxes_xyxy[i]) for i in free}
            best = max(overlaps, key=overlaps.get, default=None)
            if best is None or overlaps[best] < 0.45:
                matrix[num_classes, int(row[5])] += 1
            else:
                matrix[image.truth_labels[best], int(row[5])] += 1
                free.remove(best)
        for i in free:
            matrix[image.truth_labels[i], num_classes] += 1
    return matrix


def iou(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return overlap / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap)


def test_confusion_counts_every_object_and_every_confident_detection():
    images = random_images(2, num_images=60, score_steps=10**9)
    metrics = evaluated(images, 5)
    confusion = metrics.confusion
    assert confusion.dtype == np.int64 and np.array_equal(confusion, confusion_oracle(images, 5))
    assert confusion[:5].sum() == metrics.num_objects == sum((~image.truth_iscrowd).sum() for image in images)
    assert confusion[:5].sum(axis=1).tolist() == [of_class.num_truth for of_class in metrics.per_class.values()]
    assert confusion[:, :5].sum() == sum((image.detections[:, 4] >= 0.25).sum() for image in images)


def test_ranks_together_see_what_one_would():
    images = random_images(3)
    names = [f"class {c}" for c in range(5)]
    ranks = [CocoEvaluator(names) for _ in range(4)]
    for i, image in enumerate([*images, *images[:3]]):  # three come twice, as a padded sampler hands them out
        ranks[i % 4].add(*image.arguments())
    ranks.append(CocoEvaluator(names))  # one rank got no image
    states = [pickle.loads(pickle.dumps(rank.state())) for rank in ranks]
    together, alone = CocoEvaluator.merged(names, reversed(states)).compute(), evaluated(images, 5)
    assert together == alone and together.num_images == len(images)
    assert np.array_equal(together.confusion, alone.confusion)
    assert np.array_equal(together.pr_curves.precision, alone.pr_curves.precision, equal_nan=True)


def test_state_is_a_few_flat_arrays_and_adding_goes_on_after_it():
    images = random_images(4)
    evaluator = CocoEvaluator([f"class {c}" for c in range(5)])
    for image in images:
        evaluator.add(*image.arguments())
        evaluator.state()
    state = evaluator.state()
    assert all(isinstance(column, np.ndarray) for column in state.values()) and len(state) == 9
    assert state["detections"].shape == (sum(len(image.detections) for image in images), 6)
    assert evaluator.compute() == evaluated(images, 5)


def test_tensors_of_any_float_type_are_taken():
    image = random_images(5, num_images=1, max_truth=5)[0]
    tensors = [torch.as_tensor(values) for values in image.arguments()[2:]]
    tensors[-1] = tensors[-1].bfloat16()
    evaluator = CocoEvaluator([f"class {c}" for c in range(5)])
    evaluator.add(image.image_id, (480, 640), *tensors)
    assert np.array_equal(evaluator.state()["detections"], tensors[-1].float().numpy())
    assert np.array_equal(evaluator.state()["truth_labels"], image.truth_labels)


def test_ids_may_be_negative_or_huge():
    images = random_images(6, num_images=3)
    expected = evaluated(images, 5)
    for image, image_id in zip(sorted(images, key=lambda image: image.image_id), (-7, 0, 2**62)):
        image.image_id = image_id
    assert evaluated(images, 5) == expected


def test_nothing_at_all():
    metrics = CocoEvaluator(["cat", "dog"]).compute()
    assert [getattr(metrics, name) for name in FIGURES] == [None] * 12
    assert (metrics.num_images, metrics.num_objects, metrics.num_detections) == (0, 0, 0)
    assert metrics.confusion.shape == (3, 3) and not metrics.confusion.any()


def test_objects_and_no_detections():
    images = random_images(7, max_detections=0, crowd=0.0)
    metrics = evaluated(images, 5)
    assert metrics.ap == 0.0 and metrics.ar100 == 0.0
    found = metrics.per_class["class 0"]
    assert (found.ap, found.f1, found.recall, found.confidence) == (0.0, 0.0, 0.0, None)


def test_dict_is_json_and_holds_every_figure():
    report = json.loads(json.dumps(evaluated(random_images(8), 5).to_dict(), allow_nan=False))
    assert set(FIGURES) <= set(report["overall"]) and report["overall"]["num_images"] == 20
    assert report["per_class"]["class 4"]["ap"] is None and report["per_class"]["class 0"]["num_truth"] > 0


def test_nothing_is_printed(capfd):
    evaluated(random_images(9), 5)
    assert capfd.readouterr() == ("", "")


def test_says_what_does_not_fit():
    with pytest.raises(ValueError, match="holds a name twice"):
        CocoEvaluator(["cat", "cat"])
    evaluator = CocoEvaluator(["cat", "dog"])
    nothing = np.zeros((0, 6))
    with pytest.raises(ValueError, match="image 3: classes 2 to 2; expected 0 to 1"):
        evaluator.add(3, (10, 10), np.ones((1, 4)), np.array([2]), np.zeros(1), np.ones(1), nothing)
    with pytest.raises(ValueError, match="image 3: .*'truth_area': 2.* every object needs one entry"):
        evaluator.add(3, (10, 10), np.ones((1, 4)), np.array([1]), np.zeros(1), np.ones(2), nothing)
