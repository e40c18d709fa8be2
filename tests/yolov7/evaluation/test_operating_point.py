"""Precision and recall over the confidence, on an evaluation that can be followed by hand."""

import numpy as np
import pytest

from yolov7.evaluation.metrics import CocoEvaluator, Metrics
from yolov7.evaluation.operating_point import CONFIDENCES


def evaluated(scores_of_right: list[float], scores_of_false: list[float], num_truth: int, classes: int = 1,
              images: int = 1) -> Metrics:
    """`num_truth` objects of class 0 in every image, of which the first are found."""
    boxes = np.array([[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(num_truth)])
    right = [[*box, score, 0] for box, score in zip(boxes, scores_of_right)]
    false = [[20.0 * i, 100, 20.0 * i + 10, 110, score, 0] for i, score in enumerate(scores_of_false)]
    evaluator = CocoEvaluator([f"class {c}" for c in range(classes)])
    for image in range(images):
        evaluator.add(image, (200, 400), boxes, np.zeros(num_truth), np.zeros(num_truth), np.full(num_truth, 100.0),
                      np.array([*right, *false], float).reshape(-1, 6))
    return evaluator.compute()


def at(values: np.ndarray, confidence: float) -> float:
    return float(values[0, round(100 * confidence)])


def test_precision_and_recall_at_each_confidence():
    curves = evaluated([.9, .7, .45], [.8, .3], num_truth=4).operating
    expected = {.95: (None, 0, 0), .90: (1, 1 / 4, .4), .85: (1, 1 / 4, .4), .75: (1 / 2, 1 / 4, 1 / 3),
                .60: (2 / 3, 1 / 2, 4 / 7), .40: (3 / 4, 3 / 4, .75), .20: (3 / 5, 3 / 4, 2 / 3), 0: (3 / 5, 3 / 4, 2 / 3)}
    for confidence, (precision, recall, f1) in expected.items():
        assert at(curves.recall, confidence) == pytest.approx(recall), confidence
        assert at(curves.f1, confidence) == pytest.approx(f1), confidence
        found = at(curves.precision, confidence)
        assert np.isnan(found) if precision is None else found == pytest.approx(precision), confidence
    assert curves.best_confidence == pytest.approx(.38), "the middle of 0.31 to 0.45"
    assert curves.at_best() == pytest.approx({"precision": .75, "recall": .75, "f1": .75, "confidence": .38})


def test_they_are_exact_where_one_object_is_no_whole_percent():
    curves = evaluated([.9, .8, .7], [], num_truth=7).operating
    assert [at(curves.recall, confidence) for confidence in (.85, .75, .5)] == pytest.approx([1 / 7, 2 / 7, 3 / 7])
    assert at(curves.precision, .5) == 1


def test_many_objects_are_counted_to_a_percent():
    scores = np.linspace(.99, .2, 50)
    curves = evaluated(list(scores), [], num_truth=50, images=20).operating
    for confidence in (.3, .5, .7):
        assert at(curves.recall, confidence) == pytest.approx((scores >= confidence).mean(), abs=.011)
        assert at(curves.precision, confidence) == pytest.approx(1, abs=.02)


def test_classes_without_objects_and_models_that_find_nothing():
    curves = evaluated([.9], [], num_truth=1, classes=2).operating
    assert np.isnan(curves.recall[1]).all() and np.isnan(curves.f1[1]).all() and curves.recall.shape == (2, len(CONFIDENCES))
    assert curves.at_best()["recall"] == 1, "the mean of those with objects"
    nothing = evaluated([], [], num_truth=2).operating
    assert nothing.best_confidence == .25 and not nothing.recall.any()
    assert nothing.at_best() == {"precision": None, "recall": 0, "f1": 0, "confidence": .25}
