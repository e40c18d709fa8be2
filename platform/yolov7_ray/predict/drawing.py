"""Images with their detections drawn, and a contact sheet of the first ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolov7.images.draw import draw_detections, draw_grid
from yolov7.images.sample import decode_image, encode_image

MIN_SIDE_PX = 480
"""Smaller images are enlarged, so that texts can be read."""
NUM_ON_SHEET, SHEET_SIDE_PX = 25, 320
SHEET = "contact-sheet.jpg"


def drawn(image_rgb: np.ndarray, row: Mapping[str, Any], classes: Sequence[str]) -> bytes:
    """JPEG of an image (H, W, 3) with the detections of its row."""
    found = np.column_stack((np.reshape(row["boxes_xyxy"], (-1, 4)), row["scores"], row["labels"]))
    return encode_image(draw_detections(image_rgb, found, classes, max_detections=len(found), min_side_px=MIN_SIDE_PX), ".jpg")


class ContactSheet:
    """The first drawn images in one picture."""

    def __init__(self) -> None:
        self._images: list[np.ndarray] = []

    def add(self, jpeg: bytes) -> None:
        """Add a drawn image while there is room."""
        if len(self._images) < NUM_ON_SHEET:
            image = decode_image(jpeg)
            self._images.append(draw_grid([image], SHEET_SIDE_PX))

    def write(self, directory: Path) -> None:
        """Write it, if there is an image."""
        if self._images:
            (directory / SHEET).write_bytes(encode_image(draw_grid(self._images, SHEET_SIDE_PX), ".jpg"))
