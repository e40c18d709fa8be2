"""Generated shapes as a source: no download, the same images on every machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .item import Item, Raw, RawSource
from .objects import Annotation, Objects
from .shapes import SHAPE_CLASSES, generate_shape_image


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeItem(Item):
    """One image to draw."""

    seed: int
    size_px: int

    def fetch(self) -> Raw:
        """Draw the image."""
        row = generate_shape_image(self.seed, self.image_id, self.size_px)
        columns = (row[key] for key in ("labels", "boxes_xyxy", "iscrowd", "area", "polygons"))
        return Raw(row["image"], Objects.of([
            Annotation(label, tuple(box), iscrowd, area, tuple(np.asarray(ring, np.float32) for ring in rings))
            for label, box, iscrowd, area, rings in zip(*columns, strict=True)]))


@dataclass(frozen=True, slots=True)
class ShapeItems(Sequence[ShapeItem]):
    """Images to draw, stored as a range of numbers."""

    numbers: range
    seed: int
    size_px: int

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int | slice) -> "ShapeItem | ShapeItems":
        if isinstance(index, slice):
            return ShapeItems(self.numbers[index], self.seed, self.size_px)
        number = self.numbers[index]
        return ShapeItem(image_id=number, file_name=f"shapes-{self.seed}-{number:06d}.jpg",
                         num_bytes=self.size_px**2 // 2, mark=f"{self.size_px} px", seed=self.seed,
                         size_px=self.size_px)


def read(spec) -> RawSource:
    """Number the images across all splits, so that no image is in two splits."""
    splits: dict[str, ShapeItems] = {}
    first = 0
    for split, num_images in spec.splits.items():
        splits[split] = ShapeItems(range(first, first + num_images), spec.seed, spec.image_size_px)
        first += num_images
    return RawSource(SHAPE_CLASSES, tuple(range(len(SHAPE_CLASSES))), splits)
