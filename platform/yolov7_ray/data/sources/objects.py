"""Annotated objects: single annotations, and many as columns, which take a tenth of the memory.

n objects · r rings of polygons · v coordinates
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

UNUSABLE = -1
"""Label of an annotation that is a problem, not an object."""
GATHER_CHUNK = 1 << 9
"""Slices that are copied at once."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object as its source describes it."""

    label: int
    """Index into the source's classes."""
    box_xyxy: tuple[float, float, float, float]
    """0-based, in pixels, or in fractions of the image if its item is `relative`."""
    iscrowd: bool = False
    """A region of many objects, or one that evaluation ignores."""
    area: float | None = None
    """Square pixels as annotated; None: the box's."""
    polygons: Sequence[np.ndarray] = ()
    """Rings, flat x, y, x, y float32, in the unit of the box."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an image or an object cannot be used as it is."""

    reason: str
    detail: str = ""
    is_image: bool = False
    """The whole image is dropped, not an object."""
    count: int = 1
    """Occurrences that this stands for."""
    num_objects: int = 0
    """Objects that are lost with the image."""


@dataclass(frozen=True, slots=True)
class Objects:
    """Annotations as columns in source order, including unusable ones."""

    labels: np.ndarray
    """(n,) int32; `UNUSABLE` if `problems` has an entry."""
    boxes_xyxy: np.ndarray
    """(n, 4) float64."""
    iscrowd: np.ndarray
    """(n,) bool."""
    area: np.ndarray
    """(n,) float64; NaN: the box's."""
    num_rings: np.ndarray
    """(n,) int32."""
    ring_lengths: np.ndarray
    """(r,) int32 coordinates of each ring."""
    xy: np.ndarray
    """(v,) float32."""
    problems: dict[int, Problem] = field(default_factory=dict)
    """Position -> why it is not an object."""

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, annotations: Sequence[Annotation | Problem]) -> "Objects":
        """The columns of single annotations."""
        problems = {position: entry for position, entry in enumerate(annotations) if isinstance(entry, Problem)}
        entries = [_PLACEHOLDER if isinstance(entry, Problem) else entry for entry in annotations]
        rings = [ring for entry in entries for ring in entry.polygons]
        return cls(
            np.array([entry.label for entry in entries], np.int32),
            np.array([entry.box_xyxy for entry in entries], np.float64).reshape(-1, 4),
            np.array([entry.iscrowd for entry in entries], np.bool_),
            np.array([np.nan if entry.area is None else entry.area for entry in entries], np.float64),
            np.array([len(entry.polygons) for entry in entries], np.int32),
            np.array([len(ring) for ring in rings], np.int32),
            np.concatenate(rings, dtype=np.float32) if rings else np.zeros(0, np.float32), problems)

    @classmethod
    def joined(cls, parts: "Sequence[Objects]") -> "Objects":
        """The objects of all parts, concatenated; no part may have problems."""
        assert not any(part.problems for part in parts)
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))

    def take(self, chosen: np.ndarray) -> "Objects":
        """The objects at the positions `chosen`, in that order, copied."""
        rings = _ranges(_starts(self.num_rings)[chosen], self.num_rings[chosen])
        labels = self.labels[chosen]
        return Objects(labels, self.boxes_xyxy[chosen], self.iscrowd[chosen], self.area[chosen],
                       self.num_rings[chosen], self.ring_lengths[rings],
                       _gathered(self.xy, _starts(self.ring_lengths)[rings], self.ring_lengths[rings]),
                       self._problems_of(labels, chosen))

    def cut(self, start: np.ndarray, stop: np.ndarray) -> "Objects":
        """A slice of the columns, not copied; `start` and `stop` count objects, rings and coordinates (`ends`)."""
        objects, rings, coordinates = map(slice, start.tolist(), stop.tolist())
        labels = self.labels[objects]
        return Objects(labels, self.boxes_xyxy[objects], self.iscrowd[objects], self.area[objects],
                       self.num_rings[objects], self.ring_lengths[rings], self.xy[coordinates],
                       self._problems_of(labels, range(objects.start, objects.stop)))

    def take_groups(self, ends: np.ndarray, chosen: np.ndarray) -> tuple["Objects", np.ndarray]:
        """The objects of the groups `chosen`, in that order, copied, and their counts; `ends` as of `ends`."""
        counts = ends[chosen + 1, 0] - ends[chosen, 0]
        return self.take(_ranges(ends[chosen, 0], counts)), counts

    def ends(self, counts: np.ndarray) -> np.ndarray:
        """(len(counts) + 1, 3) where groups of so many objects end, in objects, rings and coordinates; 0 first."""
        objects = np.concatenate([[0], np.cumsum(counts)])
        rings = np.concatenate([[0], np.cumsum(self.num_rings)])[objects]
        coordinates = np.concatenate([[0], np.cumsum(self.ring_lengths, dtype=np.int64)])[rings]
        return np.stack([objects, rings, coordinates], axis=1)

    def _problems_of(self, labels: np.ndarray, positions: Sequence[int]) -> dict[int, Problem]:
        if not self.problems:
            return {}
        return {new: self.problems[int(positions[new])] for new in np.flatnonzero(labels == UNUSABLE).tolist()}


_PLACEHOLDER = Annotation(UNUSABLE, (0, 0, 0, 0))
_COLUMNS = ("labels", "boxes_xyxy", "iscrowd", "area", "num_rings", "ring_lengths", "xy")


def _starts(counts: np.ndarray) -> np.ndarray:
    """Start of each of the groups with these counts."""
    return np.cumsum(counts, dtype=np.int64) - counts


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start + 1, … of every group, concatenated."""
    return np.repeat(starts - _starts(counts), counts) + np.arange(counts.sum())


def _gathered(values: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The slices of `values`, concatenated in chunks: a full index would be larger than the values."""
    gathered = np.empty(counts.sum(dtype=np.int64), values.dtype)
    filled = 0
    for first in range(0, len(starts), GATHER_CHUNK):
        piece = values[_ranges(starts[first:first + GATHER_CHUNK], counts[first:first + GATHER_CHUNK])]
        gathered[filled:filled + len(piece)] = piece
        filled += len(piece)
    return gathered
