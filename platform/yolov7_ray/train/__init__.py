"""Ray Train: Arrow dataset in, checkpoints out."""
