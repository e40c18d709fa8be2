"""What a model finds and misses, as parts of a page: for an evaluation, and for a run of training."""
