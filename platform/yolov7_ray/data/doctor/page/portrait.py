"""What a dataset looks like: histograms of its boxes and images, and the images worth seeing.

Each shard gives its own part; parts are added in any order and of any number, in bounded memory.

n objects · B images of the batch
"""

import heapq
from collections import Counter
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .... import storage
from ..finding import Case
from ..object_checks import Objects

GRID = 32
"""Cells on each side of the maps of centres and sizes."""
OCTAVES = 8
"""Of the map of sizes: a side from 1/256 of the image's to all of it."""
AREA_OCTAVES = 16
ASPECT_OCTAVES = 4
"""To each side of 1."""
BINS_PER_OCTAVE = 4
SIDE_OCTAVES = (4, 14)
"""Of the map of image sizes: 16 to 16,384 px."""
NUM_COMMON = 24
"""Classes whose co-occurrence is counted: the most frequent."""
NUM_SHOWN = 8
"""Images that are kept of each choice."""
CHOICES = {
    "random": "Random images",
    "most objects": "Most objects",
    "most crowded": "Most crowded: the area of all boxes against the image's",
    "smallest box": "Smallest boxes",
    "most elongated box": "Most elongated boxes",
    "empty": "Images without objects",
}
"""Choice -> its title; of "random" and "empty" those whose place has the smallest digest."""

Pick = tuple[float, Case]
"""How strongly an image is of its choice, and the image."""


@dataclass(slots=True)
class Portrait:
    """Histograms and chosen images of a part of a dataset; parts can be added."""

    centres: np.ndarray = field(default_factory=lambda: np.zeros((GRID, GRID), np.int64))
    """Rows from top to bottom."""
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((GRID, GRID), np.int64))
    """Height, width of boxes by log2 of their share of the image's, in `OCTAVES`."""
    areas: np.ndarray = field(default_factory=lambda: np.zeros(AREA_OCTAVES * 2, np.int64))
    """By log2 of the share of the image's area, in half octaves up to the whole."""
    aspects: np.ndarray = field(default_factory=lambda: np.zeros(2 * ASPECT_OCTAVES * BINS_PER_OCTAVE + 1, np.int64))
    """By log2 of width / height, rounded to quarters of an octave."""
    image_sizes: np.ndarray = field(
        default_factory=lambda: np.zeros([(SIDE_OCTAVES[1] - SIDE_OCTAVES[0]) * BINS_PER_OCTAVE] * 2, np.int64))
    """Height, width by log2 of pixels, in `SIDE_OCTAVES`."""
    smallest_hw: tuple[int, int] | None = None
    """Least height and least width of all images."""
    largest_hw: tuple[int, int] | None = None
    objects_per_image: Counter[int] = field(default_factory=Counter)
    """Number of objects -> images."""
    together: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """Images that hold an object of each pair of the common classes; on the diagonal, of the class."""
    picks: dict[str, list[Pick]] = field(default_factory=dict)
    """Choice -> at most `NUM_SHOWN` images, strongest first."""

    def add(self, other: "Portrait") -> None:
        """Add another part."""
        for name in ("centres", "sizes", "areas", "aspects", "image_sizes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.together.size:
            self.together = self.together + other.together if self.together.size else other.together
        self.objects_per_image.update(other.objects_per_image)
        self._extend(other.smallest_hw, other.largest_hw)
        for choice, picks in other.picks.items():
            self._choose(choice, picks)

    def add_batch(self, batch: pa.RecordBatch, split: str, first: int, objects: Objects,
                  common: tuple[int, ...]) -> None:
        """Add a record batch whose first row is sample `first` of the split, and whose objects are `objects`."""
        sizes_hw = np.stack([batch.column(name).to_numpy() for name in ("height_px", "width_px")], axis=1)
        counts = pc.list_value_length(batch.column("labels")).to_numpy()
        self.objects_per_image.update(counts.tolist())
        if len(sizes_hw):
            self._extend(tuple(sizes_hw.min(axis=0).tolist()), tuple(sizes_hw.max(axis=0).tolist()))
        self.image_sizes += _cells(_log_bin(sizes_hw[:, 0], *SIDE_OCTAVES), _log_bin(sizes_hw[:, 1], *SIDE_OCTAVES),
                                   len(self.image_sizes))
        objects = _sound(objects)
        low, high = (objects.boxes_xyxy[:, part] / objects.size_wh for part in (slice(2), slice(2, 4)))
        width, height = (high - low).T
        self._add_boxes((low + high) / 2, width, height, objects)
        present = np.zeros((batch.num_rows, len(common)), np.int64)
        for column, label in enumerate(common):
            present[objects.image[objects.labels == label], column] = 1
        pairs = present.T @ present
        self.together = self.together + pairs if self.together.size else pairs
        self._pick(batch, split, first, counts, objects, width * height)

    def _add_boxes(self, centre_xy: np.ndarray, width: np.ndarray, height: np.ndarray, objects: Objects) -> None:
        grid_xy = np.clip((centre_xy * GRID).astype(int), 0, GRID - 1)
        self.centres += _cells(grid_xy[:, 1], grid_xy[:, 0], GRID)
        self.sizes += _cells(_share_bin(height, OCTAVES, GRID), _share_bin(width, OCTAVES, GRID), GRID)
        areas = _share_bin(width * height, AREA_OCTAVES, len(self.areas))
        self.areas += np.bincount(areas, minlength=len(self.areas))
        sides = objects.boxes_xyxy[:, 2:] - objects.boxes_xyxy[:, :2]
        octave = np.clip(np.log2(sides[:, 0] / sides[:, 1]), -ASPECT_OCTAVES, ASPECT_OCTAVES)
        aspects = np.rint(octave * BINS_PER_OCTAVE).astype(int) + ASPECT_OCTAVES * BINS_PER_OCTAVE
        self.aspects += np.bincount(aspects, minlength=len(self.aspects))

    def _pick(self, batch: pa.RecordBatch, split: str, first: int, counts: np.ndarray, objects: Objects,
              shares: np.ndarray) -> None:
        names = batch.column("file_name")
        covered = np.bincount(objects.image, weights=shares, minlength=batch.num_rows)
        sides = objects.boxes_xyxy[:, 2:] - objects.boxes_xyxy[:, :2]
        aspect = sides.max(axis=1, initial=0) / np.maximum(sides.min(axis=1, initial=np.inf), 1e-9)

        def image(row: int, detail: str, box: np.ndarray | None = None) -> Case:
            return Case(split, first + row, names[row].as_py(), detail, None if box is None else tuple(box.tolist()))

        def size(i: int) -> str:
            return f"{sides[i, 0]:.4g} x {sides[i, 1]:.4g} px"

        def of_objects(strength: np.ndarray, describe) -> list[Pick]:
            """The strongest object of each image."""
            seen: dict[int, Pick] = {}
            for i in np.argsort(-strength, kind="stable")[:NUM_SHOWN * 50].tolist():
                row = int(objects.image[i])
                if row not in seen and len(seen) < NUM_SHOWN:
                    seen[row] = float(strength[i]), image(row, describe(i), objects.boxes_xyxy[i])
            return [*seen.values()]

        def of_images(strength: np.ndarray, describe, among: np.ndarray) -> list[Pick]:
            best = among[np.argsort(-strength[among], kind="stable")[:NUM_SHOWN]]
            return [(float(strength[row]), image(row, describe(row))) for row in best.tolist()]

        place = -np.array([int(storage.digest(f"{split} {first + row}".encode())[:13], 16)
                           for row in range(batch.num_rows)], np.float64)
        everywhere, filled = np.arange(batch.num_rows), np.flatnonzero(counts)
        self._choose("random", of_images(place, lambda row: f"{counts[row]} objects", everywhere))
        self._choose("empty", of_images(place, lambda row: "", np.flatnonzero(counts == 0)))
        self._choose("most objects", of_images(counts, lambda row: f"{counts[row]} objects", filled))
        self._choose("most crowded", of_images(covered, lambda row: f"{covered[row]:.1f} x the image", filled))
        self._choose("smallest box", of_objects(-shares, size))
        self._choose("most elongated box", of_objects(aspect, lambda i: f"{aspect[i]:.1f} : 1, {size(i)}"))

    def _choose(self, choice: str, picks: list[Pick]) -> None:
        """Keep the strongest; among equals those that come first in the order of names and places."""
        every = self.picks.get(choice, []) + picks
        best = heapq.nsmallest(NUM_SHOWN, every, key=lambda pick: (-pick[0], pick[1].split, pick[1].index))
        if best:
            self.picks[choice] = best

    def _extend(self, smallest_hw: tuple[int, int] | None, largest_hw: tuple[int, int] | None) -> None:
        for name, hw, pick in (("smallest_hw", smallest_hw, min), ("largest_hw", largest_hw, max)):
            own = getattr(self, name)
            if hw:
                setattr(self, name, tuple(map(pick, own, hw)) if own else tuple(hw))

    def to_json(self) -> dict:
        """Plain values."""
        values = {name: value.tolist() if isinstance(value, np.ndarray) else value
                  for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return values | {"objects_per_image": {str(count): images for count, images in
                                               sorted(self.objects_per_image.items())},
                         "picks": {choice: [[strength, asdict(case)] for strength, case in picks]
                                   for choice, picks in self.picks.items()}}

    @classmethod
    def from_json(cls, values: dict) -> "Portrait":
        """Inverse of `to_json`."""
        arrays = {name: np.array(values[name], np.int64) for name in (
            "centres", "sizes", "areas", "aspects", "image_sizes", "together")}
        return cls(**arrays, **{name: tuple(values[name]) for name in ("smallest_hw", "largest_hw") if name in values},
                   objects_per_image=Counter({int(count): images for count, images in
                                              values["objects_per_image"].items()}),
                   picks={choice: [(strength, Case.from_json(case)) for strength, case in picks]
                          for choice, picks in values["picks"].items()})


def _sound(objects: Objects) -> Objects:
    """The objects whose box is finite and has an area."""
    with np.errstate(invalid="ignore"):
        sides = objects.boxes_xyxy[:, 2:] - objects.boxes_xyxy[:, :2]
        return objects.select(np.isfinite(objects.boxes_xyxy).all(axis=1) & (sides > 0).all(axis=1)
                              & (objects.size_wh > 0).all(axis=1))


def _share_bin(share: np.ndarray, octaves: int, bins: int) -> np.ndarray:
    """The bin of log2 of a share, the last one up to 1; smaller shares fall into the first."""
    with np.errstate(divide="ignore"):
        return np.clip(np.floor(np.log2(share) / octaves * bins + bins), 0, bins - 1).astype(int)


def _log_bin(values: np.ndarray, first: int, last: int) -> np.ndarray:
    bins = (last - first) * BINS_PER_OCTAVE
    octave = np.log2(np.maximum(values, 1)) - first
    return np.clip(np.floor(octave * BINS_PER_OCTAVE), 0, bins - 1).astype(int)


def _cells(rows: np.ndarray, columns: np.ndarray, side: int) -> np.ndarray:
    """(side, side) how many have each row and column."""
    return np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)
