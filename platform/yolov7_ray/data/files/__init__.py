"""Files of a folder as people name and write them: names resolved, text decoded, large JSON in pieces."""
