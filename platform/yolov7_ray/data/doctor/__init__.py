"""What is wrong with a dataset, before a GPU starts."""
