"""Raw outputs to detections, detections to metrics and plots."""
