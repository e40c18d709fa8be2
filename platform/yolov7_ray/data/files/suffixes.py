"""Endings of the names of pictures, in lower case: those that a decoder here reads, and others."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jfif", ".jpe", ".mpo", ".jp2", ".gif",
                  ".avif", ".dib", ".pbm", ".pgm", ".ppm", ".pnm")
OTHER_PICTURES = (".heic", ".heif", ".dng", ".cr2", ".nef", ".arw", ".psd", ".svg", ".jxl", ".tga", ".ico", ".dcm")
"""Pictures that no decoder here reads: an image that is one is lost, and said so."""
