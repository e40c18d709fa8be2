"""From shards to the samples of one rank."""
