"""Promotion of trials, on curves that are known in advance."""

import json

import pytest

from yolov7_ray.tune.search.promotion import Promotion, Step, halving_share, rungs

OBJECTIVES = {"ap": "max", "gflops": "min"}


def search(curves: list[tuple[float, float]], promotion: Promotion, workers: int = 1) -> list[tuple[str, int]]:
    """Run a search whose trial n has cost and final AP ``curves[n]`` and learns linearly; the steps as they ended."""
    epochs, begun, running, steps = promotion.rungs[-1], 0, {}, []
    while True:
        while len(running) < workers and (step := promotion.next(dict(running), begun < len(curves))):
            trial, begun = (str(begun), begun + 1) if step.trial is None else (step.trial, begun)
            assert trial not in running
            running[trial] = step.to_epoch
        if not running:
            return steps
        trial = next(iter(running))
        epoch, (cost, ap) = running.pop(trial), curves[int(trial)]
        steps.append((trial, epoch))
        promotion.record(trial, epoch, {"ap": ap * epoch / epochs, "gflops": cost}, cost)


def test_rungs_are_evaluated_epochs_of_which_none_is_near_the_last():
    assert rungs(1, 3, 20) == [1, 3, 9, 20]
    assert rungs(1, 3, 81) == [1, 3, 9, 27, 81]
    assert rungs(1, 3, 30) == [1, 3, 9, 30]
    assert rungs(2, 3, 6) == [2, 6]
    assert rungs(4, 2, 40, every=3) == [6, 9, 18, 40]
    assert rungs(5, 3, 5) == [5] and rungs(1, 2, 1) == [1]


def test_all_begin_then_the_best_goes_on_rung_by_rung():
    promotion = Promotion([1, 3, 9], {"ap": "max"}, reduction=3, trials=4, share=0.4)
    steps = search([(1, 0.2), (1, 0.8), (1, 0.1), (1, 0.3)], promotion)
    assert steps[:4] == [("0", 1), ("1", 1), ("2", 1), ("3", 1)]
    assert ("1", 9) in steps and promotion.spent() <= 0.4 * 4 * 9
    assert promotion.next({}, False) is None


def test_a_resumed_search_decides_as_the_undisturbed_one():
    curves = [(1 + number % 3, 0.1 + 0.07 * (number * 5 % 8)) for number in range(8)]
    whole = Promotion([1, 3, 9], OBJECTIVES, reduction=3, trials=8, share=0.4)
    steps = search(curves, whole)
    half = Promotion([1, 3, 9], OBJECTIVES, reduction=3, trials=8, share=0.4)
    for trial, epoch in steps[:9]:
        half.record(trial, epoch, {"ap": curves[int(trial)][1] * epoch / 9, "gflops": curves[int(trial)][0]},
                    curves[int(trial)][0])
    state = json.loads(json.dumps(half.state()))
    again = Promotion([1, 3, 9], OBJECTIVES, reduction=3, trials=8, share=0.4, state=state)
    assert again.next({}, False) == Step(*steps[9])


def test_share_of_successive_halving():
    assert halving_share([1, 3, 9], 3) == pytest.approx((1 + 2 / 3 + 6 / 9) / 9)
