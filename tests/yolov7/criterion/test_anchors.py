"""Anchors: scores equal the goldens', and ours are at least as good."""

import json
from pathlib import Path

import numpy as np
import pytest

from yolov7.criterion.anchors import anchor_fitness, best_possible_recall, fit_anchors, kmeans_anchors

GOLDENS = json.loads((Path(__file__).parents[2] / "goldens" / "anchors.json").read_text())
SIZES_PX = np.exp(np.random.default_rng(4).normal(np.log(60), 0.9, (2000, 2))).clip(2, 640)


@pytest.mark.parametrize("run", GOLDENS["runs"], ids=lambda r: f"{r['n']}-{r['gen']}-{r['np_seed']}")
def test_scores_equal_golden(run):
    assert best_possible_recall(SIZES_PX, run["anchors"]) == pytest.approx(run["bpr"], abs=1e-6)
    assert anchor_fitness(SIZES_PX, run["anchors"]) == pytest.approx(run["fitness"], abs=1e-6)


@pytest.mark.parametrize("num_anchors", [9, 12])
@pytest.mark.parametrize("generations", [0, 1000])
def test_search_is_at_least_as_good_as_golden(num_anchors, generations):
    runs = [r for r in GOLDENS["runs"] if (r["n"], r["gen"]) == (num_anchors, generations)]
    anchors = kmeans_anchors(SIZES_PX, num_anchors, generations=generations)
    assert anchors.shape == (num_anchors, 2)
    assert (np.diff(anchors.prod(axis=1)) >= 0).all()
    if runs:
        assert best_possible_recall(SIZES_PX, anchors) >= max(r["bpr"] for r in runs)
        assert anchor_fitness(SIZES_PX, anchors) >= max(r["fitness"] for r in runs)


def test_same_seed_same_anchors():
    first, again, other = (kmeans_anchors(SIZES_PX, generations=20, seed=s) for s in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_identical_sizes_give_that_anchor():
    sizes = np.tile([30.0, 60.0], (20, 1))
    assert best_possible_recall(sizes, kmeans_anchors(sizes, 3, generations=10)) == 1


def test_too_few_sizes_are_refused():
    with pytest.raises(ValueError, match="2 boxes of positive size arrived; 9 anchors need"):
        kmeans_anchors([[3, 4], [0, 5], [6, 7]])


def test_no_sizes_score_zero():
    assert best_possible_recall(np.empty((0, 2)), [[10, 10]]) == 0
    assert anchor_fitness(np.empty((0, 2)), [[10, 10]]) == 0


def test_fitted_anchors_go_from_fine_to_coarse():
    anchors = fit_anchors(SIZES_PX, num_levels=4, anchors_per_level=3, generations=50)
    assert anchors.shape == (4, 3, 2)
    assert (np.diff(anchors.prod(axis=2).ravel()) >= 0).all()
    assert (anchors.reshape(12, 2) == kmeans_anchors(SIZES_PX, 12, generations=50)).all()
