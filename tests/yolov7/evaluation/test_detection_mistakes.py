"""Each type of mistake at its boundary, and what an image is worth."""

import numpy as np
import pytest

from yolov7.evaluation.metrics import CocoEvaluator
from yolov7.evaluation.mistakes import judge, judged_images

BOX = [0, 0, 10, 10]


def verdicts(truth: list[list[float]], found: list[list[float]]) -> tuple[list[str], list[str], list[int]]:
    """Of objects [x1, y1, x2, y2, class, is crowd] and detections [x1, y1, x2, y2, score, class]."""
    truth = np.array(truth, float).reshape(-1, 6)
    return judge(truth[:, :4], truth[:, 4].astype(int), truth[:, 5], np.array(found, float).reshape(-1, 6))


@pytest.mark.parametrize(("found", "verdict", "object_", "partner"), [
    ([0, 0, 10, 5, .9, 0], "right", "found", 0),  # IoU 0.5
    ([0, 0, 10, 4.9, .9, 0], "badly placed", "ignored", 0),
    ([0, 0, 10, 1, .9, 0], "badly placed", "ignored", 0),  # IoU 0.1
    ([0, 0, 10, .9, .9, 0], "false", "missed", -1),
    ([0, 0, 10, 5, .9, 1], "confused", "ignored", 0),
    ([0, 0, 10, 4, .9, 1], "confused and badly placed", "missed", 0),
    ([50, 50, 60, 60, .9, 0], "false", "missed", -1),
])
def test_a_detection_of_one_object(found, verdict, object_, partner):
    assert verdicts([[*BOX, 0, 0]], [found]) == ([object_], [verdict], [partner])


def test_a_second_detection_of_an_object_is_a_duplicate():
    assert verdicts([[*BOX, 0, 0]], [[0, 0, 10, 9, .9, 0], [*BOX, .8, 0]]) == (["found"], ["right", "duplicate"], [0, 0])


def test_the_better_detection_takes_the_object_that_it_overlaps_most():
    two = [[*BOX, 0, 0], [0, 4, 10, 14, 0, 0]]  # the detection overlaps them by 9/11 and 7/13
    assert verdicts(two, [[0, 1, 10, 11, .9, 0], [0, 1, 10, 11, .8, 0]]) == (["found"] * 2, ["right"] * 2, [0, 1])


def test_crowds_are_neither_missed_nor_wrong():
    crowd = [0, 0, 100, 100, 0, 1]
    assert verdicts([crowd], [[10, 10, 20, 20, .9, 0]]) == (["ignored"], ["ignored"], [-1])
    assert verdicts([crowd], [[10, 10, 20, 20, .9, 1]]) == (["ignored"], ["false"], [-1])


def test_images_without_objects_or_detections():
    assert verdicts([], [[*BOX, .9, 0]]) == ([], ["false"], [-1])
    assert verdicts([[*BOX, 0, 0]], []) == (["missed"], [], [])
    assert verdicts([], []) == ([], [], [])


def test_images_are_judged_above_a_confidence():
    evaluator = CocoEvaluator(["cat", "dog"])
    one, none = np.zeros(1), np.zeros(0)
    evaluator.add(7, (20, 20), [BOX], [0], one, [100.0], [[*BOX, .2, 1], [*BOX, .3, 0], [10, 10, 20, 20, .6, 1]])
    evaluator.add(8, (20, 20), np.zeros((0, 4)), none, none, none, np.zeros((0, 6)))
    evaluator.add(9, (20, 20), [BOX, [10, 10, 20, 20]], [0, 1], np.zeros(2), [100.0, 100.0], [[*BOX, .9, 0]])
    first, empty, last = judged_images(evaluator.state(), 0.25)
    assert first.verdicts == ["false", "right"] and first.truth_verdicts == ["found"] and first.position == 0
    assert first.counts == {"false": 1} and first.f1 == pytest.approx(2 / 3)
    assert empty.f1 == 1 and not empty.counts and len(empty.detections) == 0
    assert last.counts == {"missed": 1} and last.f1 == pytest.approx(2 / 3) and last.truth_labels.tolist() == [0, 1]


def test_a_misplaced_detection_costs_what_a_miss_and_a_false_one_cost():
    evaluator = CocoEvaluator(["cat"])
    evaluator.add(1, (20, 20), [BOX], [0], np.zeros(1), [100.0], [[0, 0, 10, 4, .9, 0]])
    image, = judged_images(evaluator.state(), 0.25)
    assert image.f1 == 0 and image.counts == {"badly placed": 1}
