"""An epoch's order through blocks of shards, for datasets that are larger than the cache or still on their way.

Shuffled over all shards, the first batches of an epoch would need every one of them. Shuffled within blocks of a
few, other shards each epoch, training begins when the first block is there, and the cache need hold but two:
the one in use, and the next.
"""

from collections.abc import Sequence

import numpy as np

BLOCK_STREAM = 2
"""Sets the draw of an epoch's blocks apart from those of its samples."""


def epoch_blocks(num_shards: int, shards_per_block: int, seed: int, epoch: int) -> np.ndarray:
    """(num_shards,) block of each shard: at random, at most `shards_per_block` in one, and nearly equally many."""
    blocks = np.arange(num_shards) * -(-num_shards // shards_per_block) // max(num_shards, 1)
    return np.random.default_rng((seed, epoch, 0, BLOCK_STREAM)).permutation(blocks)


def in_blocks(order: np.ndarray, shard_rows: Sequence[int], blocks: np.ndarray) -> np.ndarray:
    """`order`, the sample index at each position, with the samples of block 0 first, then those of block 1…

    Within a block the samples keep their order, so a shuffled order stays shuffled there; with one block it stays
    as it is. Whatever was drawn, how often, is drawn as often.
    """
    shard_of = np.searchsorted(np.cumsum(shard_rows), order, side="right")
    return order[np.argsort(blocks[shard_of], kind="stable")]
