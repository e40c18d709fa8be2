"""Several runs side by side: figures, curves, classes, and what differs of their jobs."""
