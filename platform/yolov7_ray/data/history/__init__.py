"""A dataset over time: the manifests that are kept, what changed between two, and what can go."""
