"""Conversion of raw images and annotations to an Arrow dataset."""
