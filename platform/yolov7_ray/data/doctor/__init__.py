"""Dataset validation before training."""
