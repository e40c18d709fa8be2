"""Prefetching of shards: in the order of their first use, as many as the cache holds."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import numpy as np

from ...errors import StorageError
from ..manifest import Shard
from .cache import NodeCache

T = TypeVar("T")

PARALLEL_SHARDS = 4
"""Large ones are fetched in parallel ranges already; more would only delay the one that is needed first."""


class ShardSchedule:
    """When an epoch uses each shard of a split, from the order of its samples.

    `order` is the sample index at each position, `shard_rows` the rows of each shard; a sample's partners are at
    most `reach` positions from it.
    """

    def __init__(self, order: np.ndarray, shard_rows: Sequence[int], reach: int = 0):
        shard_of = np.searchsorted(np.cumsum(shard_rows), order, side="right")
        numbers, self.first = np.unique(shard_of, return_index=True)
        self.last = len(order) - 1 - np.unique(shard_of[::-1], return_index=True)[1]
        self.numbers, self.reach = numbers, reach

    def needed(self, position: int) -> list[int]:
        """Numbers of the shards that are still needed at `position`, by first use."""
        still = self.last >= position - self.reach
        return self.numbers[still][np.argsort(self.first[still], kind="stable")].tolist()

    def next_change(self, position: int) -> int:
        """The next position at which fewer shards are needed, at most the end of the epoch."""
        ends = self.last + self.reach + 1
        return int(min(ends[ends > position], default=self.last.max() + 1))


class Prefetcher:
    """Fetches the shards of one dataset into the node's cache in the background.

    All workers of a node may prefetch the same shards: one that is being fetched is skipped by the others. Errors
    are ignored here; the reader of the shard meets and reports them.
    """

    def __init__(self, cache: NodeCache, dataset_uri: str):
        self.cache, self.dataset_uri = cache, dataset_uri
        self._queue: deque[Shard] = deque()
        self._changed = threading.Lock()
        self._running = 0

    def want(self, shards: Sequence[Shard]) -> None:
        """Fetch these in the given order; replaces earlier requests that have not started."""
        missing = self.cache.missing(self.dataset_uri, shards)
        with self._changed:
            self._queue = deque(missing)
            for _ in range(min(PARALLEL_SHARDS, len(self._queue)) - self._running):
                threading.Thread(target=self._fetch_queued, name="prefetch", daemon=True).start()
                self._running += 1

    def _fetch_queued(self) -> None:
        while (shard := self._next()) is not None:
            with suppress(StorageError):
                self.cache.fetch(self.dataset_uri, shard)

    def _next(self) -> Shard | None:
        with self._changed:
            if self._queue:
                return self._queue.popleft()
            self._running -= 1
            return None


def with_prefetch(items: Iterable[T], positions: Iterable[int], schedule: ShardSchedule, shards: Sequence[Shard],
                  prefetcher: Prefetcher, later: Sequence[int] = ()) -> Iterator[T]:
    """Yield `items`, which start at `positions` of the epoch, while the `shards` of the next ones are fetched.

    `later` are the numbers of the shards that the next epoch needs first.
    """
    iterator, change = iter(items), -1
    for position in positions:
        if position >= change:
            numbers = dict.fromkeys([*schedule.needed(position), *later])
            prefetcher.want([shards[number] for number in numbers])
            change = schedule.next_change(position)
        yield next(iterator)
