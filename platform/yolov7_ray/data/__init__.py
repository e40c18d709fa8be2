"""Raw images and annotations → Arrow shards → samples."""
