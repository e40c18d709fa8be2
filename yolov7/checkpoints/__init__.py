"""Model files: ours, official ones, and exports."""
