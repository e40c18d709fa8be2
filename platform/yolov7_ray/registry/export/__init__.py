"""A model as a file for other programs; the export job."""
