"""Shuffling within blocks of shards, for datasets that are larger than the cache or not fetched yet.

Shuffled over all shards, the first batches of an epoch would need every shard. Shuffled within blocks of a few
shards, drawn anew each epoch, training starts once the first block is fetched, and the cache needs to hold only two
blocks: the one in use and the next.
"""

from collections.abc import Sequence

import numpy as np

from ... import storage
from ...errors import JobError
from ..manifest import Shard

BLOCK_STREAM = 2
"""Random stream of an epoch's blocks, separate from that of its samples."""


def epoch_blocks(num_shards: int, shards_per_block: int, seed: int, epoch: int) -> np.ndarray:
    """(num_shards,) block of each shard: random, nearly equal blocks of at most `shards_per_block`."""
    blocks = np.arange(num_shards) * -(-num_shards // shards_per_block) // max(num_shards, 1)
    return np.random.default_rng((seed, epoch, 0, BLOCK_STREAM)).permutation(blocks)


def in_blocks(order: np.ndarray, shard_rows: Sequence[int], blocks: np.ndarray) -> np.ndarray:
    """`order`, the sample index at each position, with the samples of block 0 first, then those of block 1…

    Within a block the samples keep their order, so it stays shuffled; with one block `order` is unchanged. Every
    sample occurs as often as before.
    """
    shard_of = np.searchsorted(np.cumsum(shard_rows), order, side="right")
    return order[np.argsort(blocks[shard_of], kind="stable")]


def check_cache_size(uri: str, shards: Sequence[Shard], shuffle_shards: int | None, cache_gb: float,
                     num_nodes: int = 1) -> None:
    """JobError if the cache cannot hold the shards in use at once, so that an epoch would fetch them repeatedly.

    `num_nodes`: the most that share them, each reading its own.
    """
    sizes_gb = sorted((shard.num_bytes / 1e9 for shard in shards), reverse=True)
    if not storage.is_remote(uri) or sum(sizes_gb) <= cache_gb:
        return
    if shuffle_shards is None and sum(sizes_gb) / num_nodes <= cache_gb:
        return
    max_shards = int(np.searchsorted(np.cumsum(sizes_gb), cache_gb, side="right")) // 2
    remedy = f"set data.shuffle_shards to {max_shards} or less, or " if max_shards else ""
    shared = f", on {num_nodes} nodes at most" if num_nodes > 1 else ""
    if shuffle_shards is None:
        raise JobError("data.cache_gb", f"{cache_gb:g} GB cannot hold the {sum(sizes_gb):.3g} GB of {uri}, and every "
                                        f"batch is drawn from all of it{shared}", f"{remedy}raise data.cache_gb")
    if shuffle_shards > max_shards:
        raise JobError("data.shuffle_shards", f"{shuffle_shards} shards and as many to come are "
                                              f"{sum(sizes_gb[:2 * shuffle_shards]):.3g} GB of {uri}, more than the "
                                              f"data.cache_gb of {cache_gb:g}", f"{remedy}raise data.cache_gb")
