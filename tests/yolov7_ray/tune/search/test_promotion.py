"""Promotion of trials, on curves that are known in advance."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7_ray.tune.search.promotion import Promotion, Step, halving_share, rungs

OBJECTIVES = {"ap": "max", "gflops": "min"}


def search(curves: list[tuple[float, float]], promotion: Promotion, workers: int = 1) -> list[tuple[str, int]]:
    """Run a search whose trial n has cost and final AP ``curves[n]`` and learns linearly; the steps as they ended."""
    epochs, begun, running, steps = promotion.rungs[-1], len(promotion.state()["trials"]), {}, []
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


def test_a_trial_that_fits_is_promoted_by_what_it_adds_for_its_cost():
    """Two are alike but for cost; the third is dominated at the first rung by both."""
    promotion = Promotion([1, 9], {"ap": "max"}, reduction=3, trials=3, share=0.5)
    for trial, ap, cost in (("dear", 0.5, 2.0), ("cheap", 0.5, 1.0), ("poor", 0.1, 1.0)):
        promotion.record(trial, 1, {"ap": ap}, cost)
    assert promotion.next({}, False) == Step("cheap", 9)
    assert promotion.budget() == pytest.approx(0.5 * 9 * 4) and promotion.spent() == 4
    assert promotion.next({"cheap": 9}, False) is None  # 18 - 4 - 8 holds neither 16 of dear nor 8 of poor


def test_no_more_begin_than_half_of_the_share_holds():
    promotion = Promotion([4, 20], {"ap": "max"}, reduction=3, trials=24, share=0.25)
    steps = search([(1, 0.1 + 0.01 * number) for number in range(24)], promotion)
    assert len({trial for trial, _ in steps}) == int(0.5 * 0.25 * 24 * 20 / 4) == 15


def test_first_rungs_end_before_the_first_promotion():
    promotion = Promotion([1, 9], {"ap": "max"}, reduction=3, trials=3, share=1)
    assert promotion.next({}, True) == Step(None, 1)
    promotion.record("a", 1, {"ap": 0.3}, 1.0)
    promotion.record("b", 1, {"ap": 0.5}, 1.0)
    assert promotion.next({"c": 1}, True) is None
    promotion.record("c", 1, {"ap": 0.1}, 1.0)
    assert promotion.next({}, True) == Step("b", 9)


def test_with_many_workers_no_more_are_promoted_at_once_than_can_end():
    promotion = Promotion([1, 3, 9], {"ap": "max"}, reduction=3, trials=6, share=0.5)
    for number in range(6):
        promotion.record(str(number), 1, {"ap": 0.1 * number}, 1.0)
    assert promotion.next({}, False) == Step("5", 3)
    assert promotion.next({"5": 3}, False) == Step("4", 3)
    assert promotion.next({"5": 3, "4": 3}, False) is None, "27 less 6 hold two ends of 8, though three times 2 as well"
    promotion.record("4", 3, {"ap": 0.4}, 1.0)
    assert promotion.next({"5": 3}, False) is not None, "more is known now, and 4 is left behind or goes on"


def test_a_lost_trial_is_never_promoted_and_its_compute_counts():
    promotion = Promotion([1, 9], {"ap": "max"}, reduction=3, trials=2, share=1)
    promotion.record("a", 1, {"ap": 0.9}, 1.0)
    promotion.record("b", 1, {"ap": 0.1}, 1.0)
    promotion.lost("a")
    promotion.lost("never begun")
    assert promotion.next({}, False) == Step("b", 9)
    assert promotion.reason("a") is None and promotion.spent() == 2


def test_a_search_whose_share_is_too_small_still_ends_with_a_trained_model():
    promotion = Promotion([1, 20], {"ap": "max"}, reduction=3, trials=2, share=0.1)
    assert search([(1, 0.2), (1, 0.4)], promotion) == [("0", 1), ("1", 1), ("1", 20)]


def test_why_a_trial_pauses():
    promotion = Promotion([1, 3, 9], {"ap": "max"}, reduction=3, trials=3, share=0.3)
    for trial, ap in (("a", 0.1), ("b", 0.5), ("c", 0.3)):
        promotion.record(trial, 1, {"ap": ap}, 1.0)
    promotion.record("b", 3, {"ap": 0.6}, 1.0)
    assert promotion.reason("b") == "paused after epoch 3: 1 of 3 by what its end is expected to add"
    promotion.record("b", 9, {"ap": 0.7}, 1.0)
    assert promotion.reason("b") is None and promotion.reason("unknown") is None
    assert promotion.reason("c").startswith("paused after epoch 1: 1 of 2")


def test_figures_that_are_missing_or_equal_decide_nothing_and_break_nothing():
    promotion = Promotion([1, 9], OBJECTIVES, reduction=3, trials=4, share=1)
    for number, ap in enumerate((None, 0.2, None, 0.2)):
        promotion.record(str(number), 1, {"ap": ap, "gflops": None if number == 3 else 2.0}, 0.0)
    assert promotion.next({}, False) == Step("1", 9)
    none = Promotion([1, 9], OBJECTIVES, reduction=3, trials=1, share=1)
    none.record("0", 1, {}, 1.0)
    assert none.next({}, False) == Step("0", 9)


def test_an_objective_that_is_learnt_and_minimised():
    promotion = Promotion([1, 9], {"error": "min"}, reduction=3, trials=2, share=1)
    promotion.record("a", 1, {"error": 0.9}, 1.0)
    promotion.record("b", 1, {"error": 0.4}, 1.0)
    assert promotion.next({}, False) == Step("b", 9)


searches = st.fixed_dictionaries({
    "curves": st.lists(st.tuples(st.sampled_from([0.5, 1.0, 4.0]), st.floats(0, 1)), min_size=1, max_size=9),
    "share": st.floats(0.05, 1) | st.none(), "workers": st.integers(1, 4),
    "rungs": st.sampled_from([[1, 3, 9], [2, 9], [9]]),
    "objectives": st.sampled_from([OBJECTIVES, {"ap": "max"}])})


@settings(max_examples=25, deadline=None)
@given(searches)
def test_every_search_ends_within_its_share_and_promotes_what_paused(given_search):
    curves, share, at = given_search["curves"], given_search["share"], given_search["rungs"]
    made = {"reduction": 3, "trials": len(curves), "share": share}
    promotion = Promotion(at, given_search["objectives"], **made)
    steps = search(curves, promotion, given_search["workers"])
    again = Promotion(at, given_search["objectives"], **made)
    assert search(curves, again, given_search["workers"]) == steps
    assert again.state() == promotion.state() == json.loads(json.dumps(promotion.state()))
    reached = {}
    for trial, epoch in steps:
        assert epoch == next(rung for rung in at if rung > reached.get(trial, 0))
        reached[trial] = epoch
    dearest = max(cost for cost, _ in curves) * at[-1]
    assert promotion.spent() == pytest.approx(sum(curves[int(trial)][0] * epoch for trial, epoch in reached.items()))
    assert promotion.spent() <= promotion.budget(len(reached) if len(reached) < len(curves) else None) + dearest + 1e-9
    assert max(reached.values()) == at[-1]


@settings(max_examples=10, deadline=None)
@given(searches, st.integers(0, 30))
def test_a_search_that_is_resumed_anywhere_goes_on_as_if_undisturbed(given_search, stop):
    curves = given_search["curves"]
    made = {"reduction": 3, "trials": len(curves), "share": given_search["share"]}
    steps = search(curves, Promotion(given_search["rungs"], given_search["objectives"], **made))
    stop, half = min(stop, len(steps)), Promotion(given_search["rungs"], given_search["objectives"], **made)
    for trial, epoch in steps[:stop]:
        cost, ap = curves[int(trial)]
        half.record(trial, epoch, {"ap": ap * epoch / given_search["rungs"][-1], "gflops": cost}, cost)
    resumed = Promotion(given_search["rungs"], given_search["objectives"], **made, state=json.loads(json.dumps(half.state())))
    assert search(curves, resumed) == steps[stop:]
