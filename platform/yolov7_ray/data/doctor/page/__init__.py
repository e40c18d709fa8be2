"""What the dataset looks like, and the doctor's page."""
