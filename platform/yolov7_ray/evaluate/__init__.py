"""Ray: model x dataset split to COCO AP."""
