"""An epoch's order through blocks of shards, for datasets that are larger than the cache or still on their way.

Shuffled over all shards, the first batches of an epoch would need every one of them. Shuffled within blocks of a
few, other shards each epoch, training begins when the first block is there, and the cache need hold but two:
the one in use, and the next.
"""

from collections.abc import Sequence

import numpy as np

from ... import storage
from ...errors import JobError
from ..manifest import Shard

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


def check_room(uri: str, shards: Sequence[Shard], shuffle_shards: int | None, cache_gb: float) -> None:
    """JobError where an epoch would fetch the same shards over and over: the cache cannot hold what it uses at once."""
    sizes_gb = sorted((shard.num_bytes / 1e9 for shard in shards), reverse=True)
    if not storage.is_remote(uri) or sum(sizes_gb) <= cache_gb:
        return
    fitting = int(np.searchsorted(np.cumsum(sizes_gb), cache_gb, side="right")) // 2
    remedy = f"set data.shuffle_shards to {fitting} or less, or " if fitting else ""
    if shuffle_shards is None:
        raise JobError("data.cache_gb", f"{cache_gb:g} GB cannot hold the {sum(sizes_gb):.3g} GB of {uri}, and every "
                                        "batch is drawn from all of it", f"{remedy}raise data.cache_gb")
    if shuffle_shards > fitting:
        raise JobError("data.shuffle_shards", f"{shuffle_shards} shards and as many to come are "
                                              f"{sum(sizes_gb[:2 * shuffle_shards]):.3g} GB of {uri}, more than the "
                                              f"data.cache_gb of {cache_gb:g}", f"{remedy}raise data.cache_gb")
