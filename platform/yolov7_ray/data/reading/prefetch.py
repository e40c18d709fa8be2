"""Prefetching of shards: in the order of their first use, as many as the cache holds."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import numpy as np

from ...errors import StorageError
from ..manifest import Shard
from .cache import NodeCache
from .epoch_plan import Stream
from .order import widest_window

T = TypeVar("T")

PARALLEL_SHARDS = 4
"""Large ones are fetched in parallel ranges already; more would only delay the one that is needed first."""
SHARDS_AHEAD = 64
"""Shards that are asked for ahead, besides those of the blocks in use: more cost time, and are asked for soon enough."""
SCANNED = 1 << 17
"""Positions of a block that are looked through for the order of first use; the shards not among them come last."""


class Schedule(Protocol):
    """Which shards are needed from some place on; places are positions of samples, or steps."""

    def needed(self, place: int) -> list[int]:
        """Numbers of the shards that are still needed at `place`, by first use."""

    def next_change(self, place: int) -> int:
        """The next place at which others are needed, at most the end."""


class ShardSchedule:
    """When each shard of a split is used, from the order of all samples, `order`; places are positions in it."""

    def __init__(self, order: np.ndarray, shard_rows: Sequence[int]):
        shard_of = np.searchsorted(np.cumsum(shard_rows), order, side="right")
        self.numbers, self.first = np.unique(shard_of, return_index=True)
        self.last = len(order) - 1 - np.unique(shard_of[::-1], return_index=True)[1]

    def needed(self, place: int) -> list[int]:
        still = self.last >= place
        return self.numbers[still][np.argsort(self.first[still], kind="stable")].tolist()

    def next_change(self, place: int) -> int:
        ends = self.last + 1
        return int(min(ends[ends > place], default=self.last.max() + 1))


class EpochSchedule:
    """When an epoch uses the shards of some streams, block by block; places are steps.

    A sample's partners are in its window of about `window` positions. The blocks of the `following` epoch come after
    the last.
    """

    def __init__(self, streams: Sequence[Stream], window: int, following: Callable[[], Sequence[Stream]] = tuple):
        self.streams, self.following = streams, following
        self.reaches = [widest_window(stream.steps, stream.batch_size, window) for stream in streams]

    def needed(self, place: int) -> list[int]:
        """Numbers of the shards of the blocks in use and the next, and of further ones up to SHARDS_AHEAD, by first
        use."""
        found: dict[int, None] = {}
        for stream, reach in zip(self.streams, self.reaches, strict=True):
            found |= dict.fromkeys(ahead(stream, self._block(stream, reach, place), SHARDS_AHEAD))
        in_line = max((len(stream.line.shards) for stream in self.streams), default=0)
        if len(found) < min(SHARDS_AHEAD, in_line):
            for stream in self.following():
                found |= dict.fromkeys(ahead(stream, 0, SHARDS_AHEAD - len(found)))
        return list(found)

    def next_change(self, place: int) -> int:
        changes = [len(stream.steps) for stream in self.streams]
        for number, (stream, reach) in enumerate(zip(self.streams, self.reaches, strict=True)):
            end = int(stream.position_bounds[self._block(stream, reach, place) + 1]) + reach
            if end < stream.steps.stop:
                step = stream.steps.part_of(end)
                changes[number] = step + (stream.steps[step].start < end)
        return min(changes, default=place + 1)

    @staticmethod
    def _block(stream: Stream, reach: int, step: int) -> int:
        """The first block that is still needed at this step."""
        position = max(0, stream.steps[step].start - reach)
        return min(int(np.searchsorted(stream.position_bounds, position, side="right")), len(stream.bounds) - 1) - 1


def ahead(stream: Stream, block: int, count: int) -> list[int]:
    """Numbers of the shards of this block and the next, and of further ones until there are `count`, by first use."""
    found: dict[int, None] = {}
    for number in range(block, len(stream.bounds) - 1):
        if number > block + 1 and len(found) >= count:
            break
        start, stop = stream.position_bounds[number:number + 2].tolist()
        samples = stream.order[start:min(stop, start + SCANNED)]
        shard_of = np.searchsorted(stream.line.shard_bounds[1:], samples, side="right")
        used, first = np.unique(shard_of, return_index=True)
        rest = stream.shards(number).tolist() if stop - start > SCANNED else []
        found |= dict.fromkeys([*used[np.argsort(first)].tolist(), *rest])
    return list(found)


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


def with_prefetch(items: Iterable[T], places: Iterable[int], schedule: Schedule, shards: Sequence[Shard],
                  prefetcher: Prefetcher) -> Iterator[T]:
    """Yield `items`, which start at `places` of the schedule, while the `shards` of the next ones are fetched."""
    iterator, change = iter(items), -1
    for place in places:
        if place >= change:
            prefetcher.want([shards[number] for number in schedule.needed(place)])
            change = schedule.next_change(place)
        yield next(iterator)
