"""Raw data: one module for each format, all read into the same light items."""
