"""What an architecture is built into: PyTorch modules."""
