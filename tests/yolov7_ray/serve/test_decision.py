"""Counts of two versions -> advance, hold or roll back: every figure is derived by hand."""

import math
from collections import Counter

import numpy as np
import pytest

from yolov7_ray.serve.rollout.decision import Action, Thresholds, decide
from yolov7_ray.serve.rollout.window import Window, agreement, shift_index

CLASSES = ("cat", "dog")


def window(answers: int = 1000, errors: int = 0, empty: int = 0, ms: float = 10, slow: int = 0, slow_ms: float = 100,
           dogs: int = 500, score: float = 0.85) -> Window:
    """Answers of which some are empty and some slow; one object in each other, `dogs` of them dogs."""
    found = Window()
    for number in range(answers):
        objects = 0 if number >= answers - empty else 1
        detections = np.array([[0, 0, 1, 1, score, float(number < dogs)]] * objects, np.float32).reshape(-1, 6)
        found.add(detections, CLASSES, slow_ms if number < slow else ms)
    for _ in range(errors):
        found.add_error()
    return found


def verdict(candidate: Window, stable: Window | None = None, held_s: float = 600, **limits) -> tuple[Action, str]:
    found = decide(window() if stable is None else stable, candidate, Thresholds(**limits), held_s, 600)
    return found.action, found.reason


def test_a_window_counts():
    found = window(answers=100, errors=4, empty=10, slow=2, dogs=30) + window(answers=0, errors=1)
    assert (found.requests, found.errors, found.answers, found.empty) == (105, 5, 100, 10)
    assert found.error_share == 5 / 105 and found.empty_share == 0.1
    assert found.classes == {"cat": 60, "dog": 30} and found.scores == {8: 90}
    assert 100 <= found.p99_ms < 105 and found.slower_than(20) == 2 and found.slower_than(200) == 0
    assert 10 <= window(answers=100, slow=1).p99_ms < 10.5, "99 of 100 took 10 ms"
    assert Window().p99_ms == Window().error_share == Window().empty_share == 0
    found.add(np.array([[0, 0, 1, 1, 1.0, 0]], np.float32), CLASSES, 0.0)
    assert found.scores[9] == 1, "a score of 1 is in the last bin"


def test_stability_index():
    same = Counter(a=10, b=30)
    assert shift_index(same, same) == 0
    # with half a count more in each of two bins: e = (10.5, 30.5) / 41, a = (30.5, 10.5) / 41
    assert shift_index(same, Counter(a=30, b=10)) == pytest.approx(2 * (20 / 41) * math.log(30.5 / 10.5))
    # e = (1.5, 0.5) / 2, a = (0.5, 1.5) / 2
    assert shift_index(Counter(a=1), Counter(b=1)) == pytest.approx(math.log(3))


def test_as_good_as_the_stable_version():
    assert verdict(window()) == (Action.ADVANCE, "as good as the stable version over 1000 requests")
    assert verdict(window(), held_s=599) == (Action.HOLD, "as good as the stable version for 599 of 600 s")


def test_nothing_is_judged_by_too_few_requests():
    bad = window(answers=199, dogs=0)
    assert verdict(bad) == (Action.HOLD, "199 of 200 requests of the candidate")
    assert verdict(window(), stable=bad) == (Action.HOLD, "199 of 200 requests of the stable version")
    assert verdict(bad, min_requests=199)[0] is Action.ROLL_BACK
    assert verdict(Window(), stable=Window(), min_requests=0)[0] is Action.ADVANCE, "nothing came, nothing was wanted"


@pytest.mark.parametrize("answers, errors, stable_errors, action", [
    (990, 10, 0, Action.ADVANCE),   # 1 % is allowed
    (989, 11, 0, Action.ROLL_BACK),
    (989, 11, 2, Action.ADVANCE),   # the stable version fails 2 of 1002: 1.1 % - 0.2 % < 1 %
    (0, 3, 0, Action.ROLL_BACK),    # 3 of the first 200 are 1.5 %, whatever follows
    (10, 2, 0, Action.HOLD),        # 2 of the first 200 are 1 %
])
def test_errors(answers, errors, stable_errors, action):
    found, reason = verdict(window(answers=answers, errors=errors, dogs=answers // 2), window(errors=stable_errors))
    assert found is action
    if action is Action.ROLL_BACK:
        assert reason == f"it failed {errors} of {answers + errors} requests, the stable version 0 of 1000"


@pytest.mark.parametrize("slow, slow_ms, action", [
    (17, 100, Action.ADVANCE),    # chance allows 10 + 2.326 sqrt(9.9) = 17.3 of 1000
    (18, 100, Action.ROLL_BACK),
    (1000, 14, Action.ADVANCE),   # within 1.5 times the stable version's 10 ms
    (1000, 17, Action.ROLL_BACK),
])
def test_latency(slow, slow_ms, action):
    found, reason = verdict(window(slow=slow, slow_ms=slow_ms))
    assert found is action
    assert action is Action.ADVANCE or reason.startswith("p99 latency is 1")
    assert verdict(window(slow=slow, slow_ms=slow_ms), max_latency=20)[0] is Action.ADVANCE


@pytest.mark.parametrize("empty, action", [
    (124, Action.ADVANCE),  # 0.124 - 2.326 sqrt(0.124 * 0.876 / 1000) = 0.0998
    (125, Action.ROLL_BACK),  # 0.125 - 2.326 sqrt(0.125 * 0.875 / 1000) = 0.1007
])
def test_empty_answers(empty, action):
    found, reason = verdict(window(empty=empty))
    assert found is action
    assert action is Action.ADVANCE or reason == "12.5% of its answers hold no object, of the stable version's 0.0%"
    assert verdict(window(), stable=window(empty=empty))[0] is action, "in either direction"


def test_classes_and_scores():
    assert verdict(window(dogs=600))[0] is Action.ADVANCE
    found, reason = verdict(window(dogs=800))
    index = 0.3 * math.log(0.8 / 0.5) + 0.3 * math.log(0.5 / 0.2)  # of shares (0.5, 0.5) and (0.2, 0.8)
    assert found is Action.ROLL_BACK and index == pytest.approx(0.416, abs=1e-3)
    assert reason == "the distribution of classes has changed: population stability index 0.41"
    assert verdict(window(dogs=800), max_shift=0.42)[0] is Action.ADVANCE
    found, reason = verdict(window(score=0.65))
    assert found is Action.ROLL_BACK and reason.startswith("the distribution of scores has changed")


def test_agreement_of_a_shadow():
    boxes = np.array([[0, 0, 10, 10, 0.9, 0], [20, 0, 30, 10, 0.8, 1]], np.float32)
    moved = boxes + np.array([0, 3, 0, 3, 0, 0], np.float32)  # IoU 7 / 13
    names = (CLASSES, CLASSES)
    assert agreement(boxes, boxes, names) == agreement(boxes, moved[::-1], names) == 1
    assert agreement(boxes, boxes + np.array([0, 4, 0, 4, 0, 0], np.float32), names) == 0, "IoU 6 / 14"
    assert agreement(boxes, boxes[:1], names) == pytest.approx(2 / 3)
    assert agreement(boxes[:0], boxes[:0], names) == 1 and agreement(boxes, boxes[:0], names) == 0
    assert agreement(boxes, boxes, (CLASSES, CLASSES[::-1])) == 0, "of other classes"
    assert agreement(boxes[:1], boxes[[0, 0]], names) == pytest.approx(2 / 3), "each is matched once"
    unknown = (CLASSES, ("bird", "dog"))
    assert agreement(boxes, boxes, unknown) == 0.5, "a class that the stable version does not know"
    shadow = window()
    shadow.pairs, shadow.agreed = 4, 3.5
    assert (shadow + shadow).agreement == 0.875 and Window().agreement == 1
    assert verdict(shadow, min_agreement=0.875)[0] is Action.ADVANCE
    assert verdict(shadow, min_agreement=0.88) == (
        Action.ROLL_BACK, "it finds 87.5% of the objects that the stable version finds")


def test_chance_alone_rolls_nothing_back():
    """Twenty versions that are the same, at the least number of requests and with eighty classes."""
    rng, names = np.random.default_rng(0), tuple(f"class {number}" for number in range(80))

    def sample() -> Window:
        found = Window()
        for _ in range(200):
            count = rng.poisson(3)
            rows = np.zeros((count, 6), np.float32)
            rows[:, 4], rows[:, 5] = rng.beta(2, 2, count), rng.integers(0, 80, count)
            found.add(rows, names, rng.lognormal(3, 0.3))
        return found

    assert [verdict(sample(), sample())[0] for _ in range(20)].count(Action.ROLL_BACK) == 0
