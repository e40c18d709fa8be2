"""What a run leaves for people: its page, tables, TensorBoard events, and its first batches."""
