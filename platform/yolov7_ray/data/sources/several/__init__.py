"""Many sources as one, and those that only go with others."""
