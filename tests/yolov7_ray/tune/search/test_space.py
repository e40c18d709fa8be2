"""The axes of a search space, and every distribution on them."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from yolov7_ray.tune.distributions import Distribution
from yolov7_ray.tune.search.algorithms import mutation, to_internal, to_optuna, to_value
from yolov7_ray.tune.search.space import Axis, Space, key_of

parse = TypeAdapter(Distribution).validate_python
NUMBER = st.floats(-1e6, 1e6)
DISTRIBUTIONS = st.one_of(
    st.tuples(NUMBER, NUMBER).map(lambda ends: {"uniform": sorted(ends)}),
    st.tuples(st.floats(1e-9, 1e6), st.floats(1e-9, 1e6)).map(lambda ends: {"loguniform": sorted(ends)}),
    st.tuples(st.integers(-50, 50), st.integers(-50, 50)).map(lambda ends: {"integer": sorted(ends)}),
    st.tuples(NUMBER, st.integers(0, 40), st.floats(0.01, 100)).map(
        lambda parts: {"quantized": [parts[0], parts[0] + parts[1] * parts[2], parts[2]]}),
    st.lists(st.one_of(NUMBER, st.integers(-9, 9)), min_size=1, max_size=9, unique=True).map(
        lambda values: {"choice": values}),
    st.lists(st.one_of(st.text(max_size=3), st.lists(st.integers(), max_size=2), st.none()), min_size=1, max_size=5,
             unique_by=str).map(lambda values: {"choice": values}),
).map(parse)


@given(DISTRIBUTIONS, st.integers(0, 2**32))
def test_every_algorithm_stays_on_the_axis(distribution, seed):
    axis, rng = Axis.of(distribution), random.Random(seed)
    optunas = to_optuna(axis)
    for _ in range(5):
        value = axis.at(rng.random())
        assert axis.nearest(value) == value == to_value(axis, to_internal(axis, value))
        assert optunas._contains(optunas.to_internal_repr(to_internal(axis, value)))
        assert axis.nearest(mutation(axis, value, rng)) is not None or None in axis.values
        if axis.values is None:
            assert axis.low <= mutation(axis, value, rng) <= axis.high
            assert axis.at(axis.position(value)) == pytest.approx(value, rel=1e-6, abs=1e-6 * (axis.high - axis.low))
        else:
            assert value in distribution.values() and axis.at(axis.position(value)) == value
            assert mutation(axis, value, rng) in distribution.values()


@given(DISTRIBUTIONS)
def test_a_discrete_axis_has_each_value_once_and_both_ends(distribution):
    axis = Axis.of(distribution)
    if axis.values is None:
        assert (axis.at(-1.0), axis.at(2.0)) == pytest.approx(tuple(distribution.bounds()), rel=1e-9, abs=1e-9)
        return
    count = len(axis.values)
    assert sorted(map(str, axis.values)) == sorted(map(str, distribution.values()))
    assert [axis.at((number + 0.5) / count) for number in range(count)] == list(axis.values)
    assert (axis.at(-1.0), axis.at(2.0)) == (axis.values[0], axis.values[-1])


def test_numbers_are_ordered_and_words_are_not():
    sizes = Axis.of(parse({"choice": [224, 96, 160.0]}))
    assert (list(sizes.values), sizes.ordered) == ([96, 160.0, 224], True)
    assert (sizes.position(96), sizes.position(224)) == (pytest.approx(1 / 6), pytest.approx(5 / 6))
    assert str(to_optuna(sizes)) == "IntDistribution(high=2, log=False, low=0, step=1)"
    for values in (["sgd", "adam"], [True, False], [1, "1"], [[1], [2]]):
        axis = Axis.of(parse({"choice": values}))
        assert (list(axis.values), axis.ordered) == (values, False)
        assert str(to_optuna(axis)) == "CategoricalDistribution(choices=(0, 1))"
    rate = Axis.of(parse({"loguniform": [1e-3, 1e-1]}))
    assert rate.at(0.5) == pytest.approx(1e-2) and rate.position(1e-2) == pytest.approx(0.5)


@pytest.mark.parametrize(("distribution", "value", "expected"), [
    ({"uniform": [0.2, 0.9]}, 1, 0.9),
    ({"uniform": [0.2, 0.9]}, 0.3, 0.3),
    ({"loguniform": [0.01, 1]}, 0.001, 0.01),
    ({"quantized": [0.25, 1.0, 0.25]}, 0.6, 0.5),
    ({"integer": [2, 9]}, 20, 9),
    ({"choice": [64, 96]}, 90, 96),
    ({"choice": ["sgd", "adam"]}, "sgd", "sgd"),
    ({"choice": ["sgd", "adam"]}, "adamw", None),
    ({"choice": [0.5, 1.0]}, None, None),
    ({"choice": [0.5, 1.0]}, True, None),
    ({"uniform": [0, 1]}, "1", None),
])
def test_the_nearest_value(distribution, value, expected):
    assert Axis.of(parse(distribution)).nearest(value) == expected


def test_a_discrete_space_lists_its_points():
    space = Space({"a": parse({"choice": [2, 1]}), "b": parse({"quantized": [0.5, 1.0, 0.25]})})
    assert space.num_points == 6
    assert list(space.points()) == [{"a": a, "b": b} for a, b in itertools.product((1, 2), (0.5, 0.75, 1.0))]
    assert space.contains({"a": 1, "b": 0.75}) and not space.contains({"a": 1, "b": 0.6})
    assert not space.contains({"a": 1})
    assert Space({"a": parse({"uniform": [0, 1]})}).num_points is None


def test_equal_values_have_one_key():
    assert key_of({"a": 0.1 + 0.2, "b": [1]}) == key_of({"b": [1], "a": 0.3}) and key_of({"a": 1}) == key_of({"a": 1.0})
    assert key_of({"a": True}) != key_of({"a": 1}) != key_of({"a": "1"}) and key_of({"a": 0.3}) != key_of({"a": 0.301})
