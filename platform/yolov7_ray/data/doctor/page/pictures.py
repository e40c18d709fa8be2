"""Thumbnails with boxes drawn, as img tags, until the page is as large as it may be."""

import base64
import html
from functools import cache

import cv2
import numpy as np
import pyarrow as pa

from yolov7.images.draw import draw_truth

from ....errors import JobError
from ...manifest import Manifest, dataset_root
from ...reading.mapped_shard import MappedShard
from ..finding import Case
from ..image_checks import decode
from ..shard_examination import open_shard

THUMBNAIL_PX = 240
QUALITY = 80
MAX_BYTES = 2_300_000
"""Of all pictures, encoded."""
CONTEXT = 8
"""A crop is as many times as large as its box,"""
MIN_CROP_PX = 64
"""but at least as large as this."""


class Pictures:
    """Thumbnails of the cases of a dataset."""

    def __init__(self, uri: str, manifest: Manifest, max_bytes: int = MAX_BYTES):
        self.uri, self.manifest, self.left = dataset_root(uri), manifest, max_bytes
        self._open = cache(self._open_shard)

    def of(self, case: Case, side_px: int = THUMBNAIL_PX, crop: bool = False) -> str:
        """The case's image with its object, or all objects, then the image it duplicates; empty if there is none."""
        places = [(case.split, case.index), case.twin] if case.twin else [(case.split, case.index)]
        return "".join(self._image(*place, case, side_px, crop) for place in places if place[1] is not None)

    def _image(self, split: str, index: int, case: Case, side_px: int, crop: bool) -> str:
        try:
            pixels = self._drawn(split, index, case, side_px, crop)
        except (ValueError, JobError, OSError, pa.ArrowException):
            return ""  # the case itself says why it cannot be shown
        jpeg = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        encoded = base64.b64encode(jpeg).decode()
        if len(encoded) > self.left:
            return ""
        self.left -= len(encoded)
        return (f"<img src='data:image/jpeg;base64,{encoded}' width={pixels.shape[1]} height={pixels.shape[0]} "
                f"alt='{html.escape(f'{split} {index}', quote=True)}'> ")

    def _drawn(self, split: str, index: int, case: Case, side_px: int, crop: bool) -> np.ndarray:
        mapped, row = self._locate(split, index)
        values = mapped.values(row)
        pixels, _ = decode(mapped.image(row))
        boxes, labels = values["boxes_xyxy"], values["labels"]
        if case.box_xyxy:
            same = (boxes == np.asarray(case.box_xyxy, np.float32)).all(axis=1) if len(boxes) == len(labels) else []
            boxes, labels = [case.box_xyxy], labels[same][:1] if np.any(same) else [-1]
        boxes = np.asarray(boxes, float).reshape(-1, 4)[:len(labels)]
        left, top, right, bottom = _around(boxes[0], pixels.shape[:2]) if crop and len(boxes) else (
            0, 0, *pixels.shape[1::-1])
        pixels, boxes = pixels[top:bottom, left:right], boxes - [left, top, left, top]
        scale = side_px / max(pixels.shape[:2]) if crop else min(1.0, side_px / max(pixels.shape[:2]))
        size_wh = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        small = cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        return draw_truth(small, boxes * scale, labels[:len(boxes)], self.manifest.classes)

    def _locate(self, split: str, index: int) -> tuple[MappedShard, int]:
        for number, shard in enumerate(self.manifest.split(split).shards):
            if index < shard.num_rows:
                return self._open(split, number), index
            index -= shard.num_rows
        raise ValueError(f"{split} has no image {index}")

    def _open_shard(self, split: str, number: int) -> MappedShard:
        return open_shard(self.uri, self.manifest.split(split).shards[number])


def _around(box_xyxy: np.ndarray, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square around a box with `CONTEXT`, moved into the image."""
    low, high = box_xyxy[:2], box_xyxy[2:]
    side = round(max(MIN_CROP_PX, CONTEXT * (high - low).max()))
    width, height = min(side, size_hw[1]), min(side, size_hw[0])
    left, top = (low + high - [width, height]) / 2
    left, top = round(min(max(left, 0), size_hw[1] - width)), round(min(max(top, 0), size_hw[0] - height))
    return left, top, left + width, top + height
