"""Readers of raw data: one module per format, all producing the same lightweight items."""
