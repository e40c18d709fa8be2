"""Models from checkpoint to immutable, checked, named version."""
