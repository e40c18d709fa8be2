"""Raw images and annotations become an Arrow dataset."""
