"""Ray Tune: search over hyperparameters and the architecture's scaling factors."""
