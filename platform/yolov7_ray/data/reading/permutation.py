"""Arrays that are computed by index: shuffled orders and weighted draws of any length, without their length in memory."""

from functools import cached_property
from typing import Protocol

import numpy as np

ROUNDS = 8
"""Of the Feistel network; four make a permutation that looks random, more do so for short ones, too."""
CHUNK = 256
"""Values computed together for one index: its neighbours are mostly asked for next, and cost next to nothing."""
CHUNKS_KEPT = 64

_MULTIPLIERS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


class Order(Protocol):
    """A sequence of sample indices: a NumPy array, or one that is computed by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions): ...


class Computed:
    """Base of a 1-D array whose values are computed when asked for; indices, slices and arrays of indices work."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._chunks: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_chunks": {}}

    def __len__(self) -> int:
        return self.size

    def values(self, positions: np.ndarray) -> np.ndarray:
        """(k,) int64 values at (k,) int64 positions, all within the array."""
        raise NotImplementedError

    def __getitem__(self, positions: "int | slice | np.ndarray") -> "int | np.ndarray":
        if isinstance(positions, slice):
            return self.values(np.arange(*positions.indices(self.size)))
        if np.ndim(positions):
            return self.values(np.asarray(positions, np.int64))
        number, offset = divmod(range(self.size)[positions], CHUNK)
        if number not in self._chunks:
            if len(self._chunks) == CHUNKS_KEPT:
                self._chunks.pop(next(iter(self._chunks)))
            self._chunks[number] = self[number * CHUNK:(number + 1) * CHUNK]
        return int(self._chunks[number][offset])


class Permutation(Computed):
    """A shuffled ``range(size)`` that is a function of ``key`` alone; any part of it costs only that part.

    A Feistel network permutes the numbers of as many bits as the size has; one that falls outside of the size is
    permuted again until it is inside, so that every number below the size occurs exactly once.
    """

    def __init__(self, size: int, *key: int) -> None:
        super().__init__(size)
        bits = max(size - 1, 0).bit_length()
        self._low = np.uint64(bits - bits // 2)
        self._masks = [np.uint64((1 << width) - 1) for width in (bits // 2, bits - bits // 2)]
        self._keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)

    def values(self, positions: np.ndarray) -> np.ndarray:
        values = self._encrypted(positions.astype(np.uint64))
        outside = np.flatnonzero(values >= self.size)
        while len(outside):
            values[outside] = self._encrypted(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _encrypted(self, values: np.ndarray) -> np.ndarray:
        halves = [values >> self._low, values & self._masks[1]]
        for number, key in enumerate(self._keys):
            side = number % 2
            halves[side] = halves[side] ^ (mixed(halves[1 - side] ^ key) & self._masks[side])
        return halves[0] << self._low | halves[1]


class Draws(Computed):
    """`size` draws with replacement from ``range(len(weights))`` in proportion to the weights, a function of ``key``.

    The draws at positions ``position_bounds[b]`` to ``[b + 1]`` are from numbers ``bounds[b]`` to ``[b + 1]``.
    """

    def __init__(self, weights: np.ndarray, bounds: np.ndarray, position_bounds: np.ndarray, *key: int) -> None:
        super().__init__(int(position_bounds[-1]))
        self.weights, self.bounds, self.position_bounds = np.asarray(weights, np.float32), bounds, position_bounds
        self._key = np.random.SeedSequence(key).generate_state(1, np.uint64)

    def __getstate__(self) -> dict:
        return {name: value for name, value in super().__getstate__().items() if name != "_sums"}

    @cached_property
    def _sums(self) -> np.ndarray:
        """Of the weights up to each number, from 0; twice as large as the weights, so not sent to other processes."""
        return np.concatenate([[0.0], np.cumsum(self.weights, dtype=np.float64)])

    def values(self, positions: np.ndarray) -> np.ndarray:
        blocks = np.searchsorted(self.position_bounds, positions, side="right") - 1
        low, high = self._sums[self.bounds[blocks]], self._sums[self.bounds[blocks + 1]]
        fractions = (mixed(positions.astype(np.uint64) * _MULTIPLIERS[0] ^ self._key) >> np.uint64(11)) / 2.0 ** 53
        drawn = np.minimum(low + fractions * (high - low), np.nextafter(high, 0))
        return np.searchsorted(self._sums, drawn, side="right") - 1


def mixed(values: np.ndarray) -> np.ndarray:
    """(k,) uint64 -> hashes of them; each bit depends on all (after Steele, Lea, Flood: SplitMix64)."""
    values = (values ^ values >> np.uint64(32)) * _MULTIPLIERS[0]
    values = (values ^ values >> np.uint64(29)) * _MULTIPLIERS[1]
    return values ^ values >> np.uint64(32)
