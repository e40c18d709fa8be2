"""What runs a folded model: the engines, the choice of one by measurement, and the files that they read."""
