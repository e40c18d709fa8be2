"""Raw outputs and targets to a loss."""
