"""Generated shapes as a source like any other: nothing to download, the same images everywhere."""

from dataclasses import dataclass

import numpy as np

from ..shapes import SHAPE_CLASSES, generate_shape_image
from .item import Annotation, Item, Raw, RawSource


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeItem(Item):
    """One image to be drawn."""

    seed: int
    size_px: int

    def fetch(self) -> Raw:
        """Draw the image."""
        row = generate_shape_image(self.seed, self.image_id, self.size_px)
        columns = (row[key] for key in ("labels", "boxes_xyxy", "iscrowd", "area", "polygons"))
        return Raw(row["image"], [
            Annotation(label, tuple(box), iscrowd, area, tuple(np.asarray(ring, np.float32) for ring in rings))
            for label, box, iscrowd, area, rings in zip(*columns, strict=True)])


def read(spec) -> RawSource:
    """Number the images through all splits, so that no image is in two of them."""
    splits: dict[str, list[Item]] = {}
    first = 0
    for split, num_images in spec.splits.items():
        splits[split] = [
            ShapeItem(image_id=index, file_name=f"shapes-{spec.seed}-{index:06d}.jpg",
                      num_bytes=spec.image_size_px**2 // 2, mark=f"{spec.image_size_px} px", seed=spec.seed,
                      size_px=spec.image_size_px)
            for index in range(first, first + num_images)]
        first += num_images
    return RawSource(SHAPE_CLASSES, tuple(range(len(SHAPE_CLASSES))), splits)
