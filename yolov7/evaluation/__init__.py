"""Raw outputs to detections, detections to figures."""
