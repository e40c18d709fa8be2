"""PyTorch modules built from architecture descriptions."""
