"""Forecasts of what trials reach at their end, and plans made of them."""

import itertools

import numpy as np
import pytest

from yolov7_ray.tune.search.expectation import best_plan, exceeds, points_along
from yolov7_ray.tune.search.forecast import encode, forecast

NAN = np.nan


def test_what_is_known_is_returned_and_what_is_not_follows_the_trials_that_ended():
    """Trials that grow by 2 from rung to rung: so does the one that is forecast, better than the spread between them."""
    first = np.linspace(1, 3, 9)
    figures = np.column_stack([first, first + 2, first + 4])
    figures[4, 1:] = NAN
    mean, deviation = forecast(figures, np.ones(9), np.zeros((9, 0)))
    assert mean[4] == pytest.approx(first[4] + 4, abs=0.15) and 0 < deviation[4] < first.std()
    assert np.delete(mean, 4) == pytest.approx(np.delete(first + 4, 4)) and (np.delete(deviation, 4) == 0).all()


def test_trials_left_behind_do_not_pull_the_forecasts_to_those_promoted():
    """Only the best six of twelve were promoted, and reach 1.9 on average; the others are forecast in their order."""
    first = np.linspace(0.1, 1.2, 12)
    figures = np.column_stack([first, np.where(first > 0.65, 2 * first, NAN)])
    mean, _ = forecast(figures, np.ones(12), np.zeros((12, 0)))
    assert (np.diff(mean[:6]) > 0).all() and mean[5] < 1.6 and mean[0] < 1.1


def test_trials_of_similar_values_end_similarly():
    """Same figures at the first rung; the rate alone tells, of trials that ended, what is reached."""
    rates = np.tile([0.1, 1.0], 6)
    figures = np.column_stack([np.ones(12), np.where(rates == 1, 3.0, 2.0) + 0.01 * np.arange(12)])
    figures[-2:, 1] = NAN
    features = encode([{"rate": rate} for rate in rates], np.ones(12))
    mean, _ = forecast(figures, np.ones(12), features)
    assert mean[-1] - mean[-2] > 0.5


def test_encoding_scales_numbers_by_their_logarithm_and_gives_words_a_column_each():
    rows = [{"rate": 0.01, "flip": True, "kind": "a", "same": 3}, {"rate": 0.1, "flip": False, "kind": "b", "same": 3},
            {"rate": 1.0, "flip": True, "kind": "a", "same": 3}]
    found = encode(rows, [1.0, 10.0, 100.0])
    assert found[:, 0].tolist() == pytest.approx([0, 0.5, 1]) and found[:, -1].tolist() == pytest.approx([0, 0.5, 1])
    assert found.shape == (3, 1 + 2 + 2 + 1) and set(found[:, 1:5].ravel().tolist()) == {0.0, 1.0}
    assert encode([{}, {}], [2.0, 2.0]).shape == (2, 0)


def test_probabilities_are_those_of_the_normal_distribution():
    found = exceeds(np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0, 1.96]))
    assert found[0] == pytest.approx([0.5, 0.158655, 0.025], abs=5e-4)
    assert found[1].tolist() == [1, 0.5, 0]


def test_points_are_spread_evenly():
    assert points_along(0)[:4].tolist() == [0.5, 0.25, 0.75, 0.125]
    assert points_along(1)[:3] == pytest.approx([1 / 3, 2 / 3, 1 / 9])


def test_a_plan_covers_nearly_as_much_as_the_best_one_and_keeps_its_budget():
    rng = np.random.default_rng(0)
    for _ in range(20):
        dominates, costs = rng.random((7, 32)) ** 3, rng.choice([1.0, 2.0, 5.0], 7)
        plan = best_plan(dominates, np.ones(32), costs, 7.0)

        def covered(chosen: tuple[int, ...]) -> float:
            return 1 - np.prod(1 - dominates[list(chosen)], axis=0).mean()

        best = max(covered(chosen) for number in range(8) for chosen in itertools.combinations(range(7), number)
                   if costs[list(chosen)].sum() <= 7)
        assert costs[plan].sum() <= 7 and len(set(plan)) == len(plan)
        assert covered(plan) >= 0.95 * best
    assert best_plan(dominates, np.ones(32), costs, 0.5) == []


def test_figures_that_no_distribution_fits_are_taken_as_they_are(monkeypatch):
    def fail(matrix):
        raise np.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(np.linalg, "cholesky", fail)
    figures = np.array([[1.0, 4.0], [3.0, NAN], [NAN, NAN]])
    mean, deviation = forecast(figures, np.ones(3), np.zeros((3, 0)))
    assert mean.tolist() == [4, 3, 3.5] and deviation.tolist() == [0, 0.5, 0.5]
