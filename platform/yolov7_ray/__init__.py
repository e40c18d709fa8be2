"""YOLOv7 on Ray: one job file in, a trained, tuned, registered and served detector out."""
