"""CVAT: XML for images, and tracks of XML for video."""
