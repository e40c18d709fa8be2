"""Label Studio: its tasks, the results in them, and the brush strokes of results."""
