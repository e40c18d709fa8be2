"""Captured images as Parquet: a row for each, as a source of an ingest job reads it."""

import io
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from yolov7.images.sample import encode_image

from ..served import Detected

OBJECT = pa.struct([("bbox_xyxy", pa.list_(pa.float32())), ("category", pa.string()), ("score", pa.float32())])
SCHEMA = pa.schema([
    ("file_name", pa.string()), ("image", pa.large_binary()), ("width", pa.int32()), ("height", pa.int32()),
    ("objects", pa.list_(OBJECT)), ("request_id", pa.string()), ("captured_at", pa.timestamp("ms", "UTC")),
    ("model", pa.string()), ("version", pa.string()), ("reason", pa.string())])
"""Boxes in pixels of the image as displayed; `reason` is share or uncertain."""

SUFFIXES = {b"\x89PNG": "png", b"RIFF": "webp"}


@dataclass(frozen=True, eq=False)
class Captured:
    """An image that is kept, with its answer."""

    image: bytes | np.ndarray
    """As it was sent, or pixels (H, W, 3) uint8."""
    found: Detected
    request_id: str
    reason: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def num_bytes(self) -> int:
        """What it holds in memory."""
        return self.image.nbytes if isinstance(self.image, np.ndarray) else len(self.image)

    @property
    def directory(self) -> str:
        """Of its file, below the capture's uri."""
        return f"{self.found.info.name}/{self.at:%Y-%m-%d}"

    def row(self) -> dict:
        """Its row of SCHEMA."""
        info, (height, width) = self.found.info, self.found.size_hw
        image = encode_image(self.image, ".png") if isinstance(self.image, np.ndarray) else bytes(self.image)
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", self.request_id[:64])
        return {
            "file_name": f"{stem}-{uuid.uuid4().hex[:8]}.{SUFFIXES.get(image[:4], 'jpg')}", "image": image,
            "width": width, "height": height, "request_id": self.request_id, "captured_at": self.at,
            "model": info.name, "version": info.version, "reason": self.reason,
            "objects": [{"bbox_xyxy": row[:4], "category": info.classes[int(row[5])], "score": row[4]}
                        for row in self.found.detections.tolist()]}


def parquet(captured: Sequence[Captured]) -> bytes:
    """The file of these images."""
    sink = io.BytesIO()
    table = pa.Table.from_pylist([each.row() for each in captured], SCHEMA)
    pq.write_table(table, sink, compression={name: "none" if name == "image" else "zstd" for name in ("image", "file_name")},
                   use_dictionary=False)
    return sink.getvalue()
