"""Reading shards: cache, order and batches of one rank."""
