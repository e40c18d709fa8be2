"""Orders computed by index: every number once, unlike from key to key, evenly spread, and in little memory."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yolov7_ray.data.reading.permutation import Draws, Permutation


def test_every_number_once_for_every_small_size():
    for size in range(1001):
        assert np.array_equal(np.sort(Permutation(size, 7, size)[:]), np.arange(size))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 1_000_000), st.integers(0, 2**32 - 1))
def test_every_number_once_for_large_sizes(size, key):
    assert (np.bincount(Permutation(size, key)[:], minlength=size) == 1).all()


@given(st.integers(1, 3000), st.integers(0, 9), st.data())
def test_indices_slices_and_arrays_agree(size, key, data):
    order = Permutation(size, key)
    whole = order[:]
    position = data.draw(st.integers(-size, size - 1))
    assert order[position] == whole[position]
    start, stop = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
    assert np.array_equal(order[start:stop], whole[start:stop])
    assert np.array_equal(order[np.arange(size)[::-3]], whole[::-3])
    with pytest.raises(IndexError):
        order[size]


def test_the_key_decides():
    orders = [tuple(Permutation(100, seed, epoch)[:]) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16
    assert tuple(Permutation(100, 3, 2)[:]) == orders[14]


def test_a_known_order():
    """Runs go on with it: it must not change."""
    assert Permutation(10_000_000, 0, 1)[:4].tolist() == [974094, 5203221, 5746953, 9352882]


@pytest.mark.parametrize("size", [12, 20, 300])
def test_places_are_even(size):
    """Of 4000 keys: the value at each place, and pairs of neighbours' values, have the frequencies of chance."""
    orders = np.array([Permutation(size, 1, key)[:] for key in range(4000)])
    bins = orders * 4 // size if size > 20 else orders
    width = bins.max() + 1
    for columns in (bins[:, :1], bins[:, -1:], bins[:, [0, 1]], bins[:, [size // 2, 3]]):
        cells = columns[:, 0] if columns.shape[1] == 1 else columns[:, 0] * width + columns[:, 1]
        possible = width if columns.shape[1] == 1 else width * width
        expected = np.full(possible, len(orders) / possible)
        if columns.shape[1] == 2:  # two different values
            sizes = np.bincount(np.arange(size) * 4 // size if size > 20 else np.arange(size))
            pairs = np.outer(sizes, sizes) - np.diag(sizes)
            expected = (len(orders) * pairs / pairs.sum()).ravel()
        counts = np.bincount(cells, minlength=possible)
        assert (counts[expected == 0] == 0).all()
        kept = expected > 0
        statistic = ((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum()
        degrees = kept.sum() - 1
        assert statistic < degrees + 5 * (2 * degrees) ** 0.5  # five standard deviations of chi-square


def test_a_large_order_takes_little_memory():
    tracemalloc.start()
    try:
        order = Permutation(2_000_000, 0)
        seen = {order[position] for position in range(0, 2_000_000, 20_011)}
        assert len(seen) == 100 and len(order[1000:2000]) == 1000
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    assert len(pickle.dumps(order)) < 1000


def test_draws_follow_the_weights_within_their_range():
    weights, bounds = np.array([0, 1, 3, 0, 5, 5, 0]), np.array([0, 4, 7])
    draws = Draws(weights, bounds, np.array([0, 8000, 20_000]), 3)
    first, second = np.bincount(draws[:8000], minlength=7), np.bincount(draws[8000:], minlength=7)
    assert first / 8000 == pytest.approx([0, 0.25, 0.75, 0, 0, 0, 0], abs=0.02)
    assert second / 12_000 == pytest.approx([0, 0, 0, 0, 0.5, 0.5, 0], abs=0.02)
    assert np.array_equal(pickle.loads(pickle.dumps(draws))[5000:9000], draws[5000:9000])
    assert not np.array_equal(Draws(weights, bounds, np.array([0, 8000, 20_000]), 4)[:100], draws[:100])
