"""The sizes of all boxes of a split, for anchors, read without the images."""

import numpy as np
import pyarrow as pa

from ..manifest import Manifest, dataset_root
from .columns import chosen_rows

COLUMNS = ("height_px", "width_px", "boxes_xyxy", "iscrowd")


def read_box_sizes(dataset_uri: str, manifest: Manifest, split: str, chosen: np.ndarray | None = None) -> np.ndarray:
    """(n, 2) float64: width and height of every box of ``split`` as fractions of its image's longer side; no crowds.

    With `chosen`, ascending indices of samples, those in these samples. Of each shard, in S3 too, only these columns are
    read: a thousandth of its bytes.
    """
    tables = chosen_rows(dataset_root(dataset_uri), manifest.split(split).shards, COLUMNS, chosen)
    return np.concatenate([np.zeros((0, 2)), *map(_sizes, tables)])


def _sizes(table: pa.Table) -> np.ndarray:
    boxes, iscrowd = (table[name].combine_chunks() for name in ("boxes_xyxy", "iscrowd"))
    corners_px = boxes.flatten().flatten().to_numpy().reshape(-1, 4).astype(np.float64)
    longer_px = np.maximum(table["height_px"].to_numpy(), table["width_px"].to_numpy())
    sizes = (corners_px[:, 2:] - corners_px[:, :2]) / np.repeat(longer_px, boxes.value_lengths().to_numpy())[:, None]
    return sizes[~iscrowd.flatten().to_numpy(zero_copy_only=False)]
