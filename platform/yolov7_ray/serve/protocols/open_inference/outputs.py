"""Detections as output tensors.

n images · d detections, those of the first image first
"""

from collections.abc import Sequence

import numpy as np

from ...served import Detected

OUTPUTS = {"boxes": ("FP32", [-1, 4]), "scores": ("FP32", [-1]), "labels": ("INT64", [-1]),
           "num_detections": ("INT64", [-1])}
"""Name -> datatype and shape: [d, 4] x1, y1, x2, y2 in pixels, [d], [d], and [n], which tells whose they are."""


def output_tensors(found: Sequence[Detected]) -> dict[str, np.ndarray]:
    """The outputs for n images, little-endian."""
    rows = np.concatenate([np.asarray(each.detections, np.float32).reshape(-1, 6) for each in found])
    return {"boxes": np.ascontiguousarray(rows[:, :4], "<f4"), "scores": rows[:, 4].astype("<f4"),
            "labels": rows[:, 5].astype("<i8"), "num_detections": np.array([len(each.detections) for each in found], "<i8")}
