"""Architectures as data: description classes, the YOLOv7 family, baselines and ablations."""
