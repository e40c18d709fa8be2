"""Formats that are tables: rows of boxes that name their image."""
