"""Records of images with nested objects: how their parts are found, and images that lie in larger files."""
