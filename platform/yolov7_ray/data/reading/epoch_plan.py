"""Which sample an epoch shows at which position, and which node reads it, as a function of (seed, epoch) and counts.

A position's sample is computed when it is asked for, so that an epoch of any size begins at once. Below
`LARGE` samples the order is NumPy's permutation, as it always was; above, and where nodes read only their share, a keyed
one: the shards are put in a random line, the line is cut at rows into one stretch per node, a stretch into blocks of
shards, and the rows within a block are shuffled. n samples · S shards · P parts of a global batch
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .order import Runs, epoch_order, epoch_positions, equal_parts, partner_window
from .permutation import Computed, Draws, Order, Permutation
from .shard_windows import epoch_blocks, in_blocks

LARGE = 1_000_000
"""Samples from which on the order is computed by index; NumPy's takes 0.1 s and 8 MB for so many."""
LINE_STREAM, ROW_STREAM, DRAW_STREAM = 3, 4, 5
"""Random streams of an epoch: its line of shards, the rows of each block, and weighted draws."""


class ShardLine:
    """The shards of a split side by side in some order; a slot is the place of one row in this line."""

    def __init__(self, shards: np.ndarray, shard_rows: Sequence[int]) -> None:
        """``shards``: (S,) the number of each shard in the line."""
        rows = np.asarray(shard_rows, np.int64)
        self.shards, self.bounds = shards, np.concatenate([[0], np.cumsum(rows[shards])])
        self.shard_bounds = np.concatenate([[0], np.cumsum(rows)])

    def samples(self, slots: np.ndarray) -> np.ndarray:
        """(k,) sample indices at (k,) slots."""
        places = np.searchsorted(self.bounds, slots, side="right") - 1
        return self.shard_bounds[self.shards[places]] + slots - self.bounds[places]

    def places(self, start: int, stop: int) -> range:
        """Places in the line of the shards that have rows in slots ``start`` to ``stop``, not empty."""
        return range(int(np.searchsorted(self.bounds, start, side="right")) - 1,
                     int(np.searchsorted(self.bounds, stop, side="left")))


class RowsInBlocks(Computed):
    """Sample index at each position of a stretch of the line: block after block, the rows of each block shuffled."""

    def __init__(self, line: ShardLine, bounds: np.ndarray, *key: int) -> None:
        """``bounds``: slots at which the blocks begin, and the end."""
        super().__init__(int(bounds[-1] - bounds[0]))
        self.line, self.bounds, self.key = line, bounds, key

    def values(self, positions: np.ndarray) -> np.ndarray:
        slots = positions + self.bounds[0]
        blocks = np.searchsorted(self.bounds, slots, side="right") - 1
        for block in np.unique(blocks):
            start, stop = self.bounds[block:block + 2].tolist()
            chosen = blocks == block
            shuffled = Permutation(stop - start, *self.key, start)
            slots[chosen] = start + shuffled[slots[chosen] - start]
        return self.line.samples(slots)


class DrawnRows(Computed):
    """Sample index at each position, drawn with replacement within each block of the line."""

    def __init__(self, line: ShardLine, draws: Draws) -> None:
        super().__init__(len(draws))
        self.line, self.draws = line, draws

    def values(self, positions: np.ndarray) -> np.ndarray:
        return self.line.samples(self.draws[positions])


@dataclass(frozen=True, eq=False)
class Stream:
    """What one node reads in an epoch: its samples one after the other, in blocks that need few shards at a time."""

    order: Order
    """Sample index at each position of the stream."""
    steps: Runs
    """The stream's positions in each global batch."""
    batch_size: int
    """Most of its positions in one global batch."""
    line: ShardLine
    bounds: np.ndarray
    """Slots of the line at which its blocks begin, and the end."""
    position_bounds: np.ndarray
    """Positions of the stream at which its blocks begin, and the end."""

    def window(self, position: int, size: int) -> range:
        """Positions of the stream from which the partners of that at ``position`` come; see `partner_window`."""
        return partner_window(self.steps, self.batch_size, size, position)

    def partners(self, position: int, size: int) -> "Partners":
        """Sample indices in the window of that at ``position``, but for its own."""
        return Partners(self.order, self.window(position, size), position)

    def shards(self, block: int) -> np.ndarray:
        """Numbers of the shards that this block reads."""
        start, stop = self.bounds[block:block + 2].tolist()
        places = self.line.places(start, stop) if stop > start else range(0)
        return self.line.shards[places.start:places.stop]


class Partners(Sequence):
    """Sample indices in a window of an order, but for that at `place`; computed when they are drawn."""

    def __init__(self, order: Order, window: range, place: int) -> None:
        self.order, self.window, self.place = order, window, place

    def __len__(self) -> int:
        return len(self.window) - 1

    def __getitem__(self, number: int) -> int:
        position = self.window.start + number
        return int(self.order[position + (position >= self.place)])


class EpochPlan:
    """The samples of one epoch: `steps`, positions of each global batch, and one `Stream` for each node."""

    def __init__(self, steps: Runs, streams: list[Stream], node_of_part: Sequence[int]) -> None:
        self.steps, self.streams, self.node_of_part = steps, streams, np.asarray(node_of_part)
        self._deals = {length: _Deal(length, self.node_of_part) for length in {steps.long, steps.short}}

    def locate(self, position: int) -> tuple[Stream, int]:
        """The stream that holds a position of the epoch, and the position in it."""
        if len(self.streams) == 1:
            return self.streams[0], position
        step = self.steps.part_of(position)
        batch = self.steps[step]
        deal, offset = self._deals[len(batch)], position - batch.start
        stream = self.streams[deal.node[offset]]
        return stream, stream.steps[step].start + int(deal.place[offset])

    def sample(self, position: int) -> int:
        """Sample index at this position of the epoch."""
        stream, place = self.locate(position)
        return int(stream.order[place])

    def stand_in(self, step: int, part: int) -> tuple[Stream, int]:
        """A sample for a part of a batch that is smaller than the number of parts, from the part's own node."""
        stream = self.streams[self.node_of_part[min(part, len(self.node_of_part) - 1)]]
        if not len(stream.order):
            return self.locate(self.steps[step].start)
        return stream, min(stream.steps[step].start, len(stream.order) - 1)

    def streams_of(self, parts: Sequence[int], num_parts: int) -> list[Stream]:
        """The streams from which these of ``num_parts`` parts of every batch come: one, if nodes are as planned."""
        found = {int(node) for length, deal in self._deals.items() for part in parts
                 for node in deal.node[equal_parts(range(length), num_parts)[part]]}
        return [self.streams[node] for node in sorted(found)]


class _Deal:
    """How a global batch of `length` positions is dealt to nodes."""

    def __init__(self, length: int, node_of_part: np.ndarray) -> None:
        sizes = [len(part) for part in equal_parts(range(length), len(node_of_part))]
        self.node = np.repeat(node_of_part, sizes)
        """(length,) node of each position."""
        self.counts = np.bincount(self.node, minlength=int(node_of_part.max()) + 1)
        """Positions of each node."""
        self.place = np.empty(length, np.int64)
        """(length,) how many earlier positions of the batch belong to the same node."""
        self.place[np.argsort(self.node, kind="stable")] = np.concatenate([np.arange(count) for count in self.counts])


def epoch_plan(shard_rows: Sequence[int], batch_size: int, seed: int, epoch: int, *, shuffle_shards: int | None = None,
               weights: np.ndarray | None = None, node_of_part: Sequence[int] | None = None) -> EpochPlan:
    """The plan of one epoch over shards with so many rows each.

    With ``shuffle_shards`` it uses so many shards at a time. With ``weights``, (n,), samples are drawn in their
    proportion instead of once each. ``node_of_part``: (P,) the node, from 0, that makes each part of a global batch and
    reads a share of the rows of its own; None: all nodes read everything. ValueError for weights with nodes.
    """
    num_samples = int(np.sum(shard_rows))
    steps, num_shards = epoch_positions(num_samples, batch_size), len(shard_rows)
    if node_of_part is None and num_samples < LARGE:
        blocks = epoch_blocks(num_shards, shuffle_shards or max(num_shards, 1), seed, epoch)
        order = in_blocks(epoch_order(num_samples, seed, epoch, weights), shard_rows, blocks)
        line = ShardLine(np.argsort(blocks, kind="stable"), shard_rows)
        of_block = np.concatenate([[0], np.cumsum(np.bincount(blocks))])
        bounds = position_bounds = line.bounds[of_block]
        if weights is not None:
            shard_of = np.searchsorted(line.shard_bounds[1:], order, side="right")
            position_bounds = np.searchsorted(blocks[shard_of], np.arange(len(bounds)))
        return EpochPlan(steps, [Stream(order, steps, batch_size, line, bounds, position_bounds)], [0])
    if weights is not None and node_of_part is not None:
        raise ValueError("epoch_plan: weighted draws come from all shards; leave out weights or node_of_part")
    line = ShardLine(np.random.default_rng((seed, epoch, 0, LINE_STREAM)).permutation(num_shards), shard_rows)
    node_of_part = [0] if node_of_part is None else node_of_part
    plan = EpochPlan(steps, [], node_of_part)
    start = 0
    for long, short in zip(*(plan._deals[length].counts.tolist() for length in (steps.long, steps.short)), strict=True):
        of_node = Runs(0, steps.num_long, long, steps.num_short, short)
        bounds = _block_bounds(line, start, start + of_node.stop, shuffle_shards)
        start += of_node.stop
        if weights is None:
            order, position_bounds = RowsInBlocks(line, bounds, seed, epoch, 0, ROW_STREAM), bounds - bounds[0]
        else:
            order = _drawn(line, bounds, weights, seed, epoch)
            position_bounds = order.draws.position_bounds
        plan.streams.append(Stream(order, of_node, long if steps.num_long else short, line, bounds, position_bounds))
    return plan


def _block_bounds(line: ShardLine, start: int, stop: int, shuffle_shards: int | None) -> np.ndarray:
    """Slots at which the blocks of this stretch begin, and its end: nearly equal blocks of whole shards."""
    if stop == start or not shuffle_shards:
        return np.array([start, stop])
    places = line.places(start, stop)
    blocks = equal_parts(places, -(-len(places) // shuffle_shards))
    return np.clip([*(int(line.bounds[block.start]) for block in blocks), stop], start, stop)


def _drawn(line: ShardLine, bounds: np.ndarray, weights: np.ndarray, seed: int, epoch: int) -> DrawnRows:
    """As many draws as there are samples; each block gets the number that draws from all of them would give it."""
    num_samples = int(line.bounds[-1])
    if len(weights) != num_samples:
        raise ValueError(f"epoch_plan: {len(weights)} weights for {num_samples} samples; give one each")
    in_line = np.concatenate([weights[line.shard_bounds[shard]:line.shard_bounds[shard + 1]] for shard in line.shards])
    of_block = np.diff(np.concatenate([[0], np.cumsum(in_line, dtype=np.float64)])[bounds])
    counts = np.random.default_rng((seed, epoch, 0, DRAW_STREAM)).multinomial(num_samples, of_block / of_block.sum())
    return DrawnRows(line, Draws(in_line, bounds, np.concatenate([[0], np.cumsum(counts)]), seed, epoch, 0,
                                 DRAW_STREAM))
