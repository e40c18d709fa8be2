"""What a detector is, as data: the language, the family, baselines, ablations."""
