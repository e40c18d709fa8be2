"""Fronts and hypervolumes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7_ray.tune.search.fronts import fronts, hypervolume, non_dominated, ranked

AP_AND_COST = ("max", "min")
POINTS = [(0.5, 10), (0.4, 4), (0.45, 12), (0.1, 1), (0.4, 5), (0.5, 10)]


def points(num_objectives: int):
    """Lists of points on a coarse grid, so that ties and copies occur."""
    return st.lists(st.tuples(*[st.integers(0, 6)] * num_objectives), max_size=9)


def dominates(one, other, directions) -> bool:
    as_good = [a >= b if way == "max" else a <= b for a, b, way in zip(one, other, directions)]
    return all(as_good) and tuple(one) != tuple(other)


def test_the_front_holds_what_nothing_beats_copies_included():
    assert non_dominated(POINTS, AP_AND_COST) == [0, 1, 3, 5]
    assert fronts(POINTS, AP_AND_COST) == [[0, 1, 3, 5], [2, 4]]
    assert non_dominated([], AP_AND_COST) == [] and fronts([], AP_AND_COST) == []


def test_a_point_without_a_figure_is_of_no_front_and_ranked_last():
    assert non_dominated([(math.nan, 0), (0.1, 5)], AP_AND_COST) == [1]
    assert fronts([(math.nan, 0), (0.1, 5)], AP_AND_COST) == [[1], [0]]
    assert ranked([(math.nan, 0), (0.1, 5), (0.2, 9)], AP_AND_COST) == [2, 1, 0]


def test_ranks_begin_with_the_best_and_spread_over_each_front():
    line = [(0.0, 0), (0.25, 1), (0.5, 2), (0.75, 3), (1.0, 4), (0.1, 4)]
    assert ranked(line, AP_AND_COST) == [4, 0, 2, 1, 3, 5]
    assert ranked([(0.2,), (0.9,), (0.5,)], ("max",)) == [1, 2, 0]


@pytest.mark.parametrize(("found", "reference", "directions", "volume"), [
    ([(0.5, 10), (0.4, 4)], (0, 12), AP_AND_COST, 0.5 * 2 + 0.4 * 6),
    ([(0.5, 10), (0.4, 4), (0.3, 8), (0.9, 12), (math.nan, 1)], (0, 12), AP_AND_COST, 0.5 * 2 + 0.4 * 6),
    ([(3,), (5,)], (1,), ("max",), 4),
    ([(1, 1, 1)], (0, 0, 0), ("max",) * 3, 1),
    ([(3, 1, 1), (1, 3, 1), (1, 1, 3)], (0, 0, 0), ("max",) * 3, 7),
    ([(2, 2, 1), (1, 1, 2)], (0, 0, 0), ("max",) * 3, 5),
    ([], (0, 12), AP_AND_COST, 0),
])
def test_hypervolumes_worked_out_by_hand(found, reference, directions, volume):
    assert hypervolume(found, reference, directions) == pytest.approx(volume, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4).flatmap(lambda number: st.tuples(points(number), st.lists(
    st.sampled_from(["max", "min"]), min_size=number, max_size=number))))
def test_hypervolume_counts_the_cells_of_the_grid_that_are_dominated(given_points):
    found, directions = given_points
    reference = [0 if way == "max" else 6 for way in directions]
    cells = itertools.product(range(6), repeat=len(directions))
    middles = [[cell + 0.5 for cell in cells_of] for cells_of in cells]
    count = sum(any(dominates(point, middle, directions) for point in found) for middle in middles)
    assert hypervolume(found, reference, directions) == pytest.approx(count, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(points(2) | points(3))
def test_fronts_partition_the_points_by_dominance(found):
    directions = ("max", "min", "max")[:len(found[0]) if found else 2]
    layers = fronts(found, directions)
    assert sorted(itertools.chain(*layers)) == list(range(len(found)))
    for number, layer in enumerate(layers):
        later = list(itertools.chain(*layers[number:]))
        assert layer == [index for index in later
                         if not any(dominates(found[other], found[index], directions) for other in later)] or \
            sorted(layer) == sorted(index for index in later
                                    if not any(dominates(found[other], found[index], directions) for other in later))
    order = ranked(found, directions)
    front_of = {index: number for number, layer in enumerate(layers) for index in layer}
    assert sorted(order) == list(range(len(found)))
    assert (np.diff([front_of[index] for index in order]) >= 0).all()
