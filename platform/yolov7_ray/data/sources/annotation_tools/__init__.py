"""Formats of annotation tools: one module each, which yields what a file says of each image."""
