"""From an image to detections, one way for all: the class `Detector`, predict jobs and the replicas of an endpoint."""
