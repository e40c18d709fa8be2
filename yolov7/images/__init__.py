"""Images and boxes, from files to training batches."""
