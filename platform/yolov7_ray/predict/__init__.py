"""Ray Data: model x images to detections."""
