"""Duplicate images: the same id, the same bytes, or nearly the same picture; across splits they are leakage."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .finding import Case, Findings

MAX_DIFFERENT_BITS = 6
"""Of 64. Recompressing and resizing changes a few; unrelated pictures differ by 32."""
MAX_TINT_DIFFERENCE = 8.0
"""Mean difference of the cells' colours in grey levels."""
NEIGHBOURS = 64
"""Following hashes that each hash is compared to in every sorted list."""
ROTATION_BITS = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """Data that identify an image."""

    split: str
    index: int
    image_id: int
    file_name: str
    sha256: str
    hash: int | None = None
    """Perceptual hash; None: the image was not, or cannot be, decoded."""
    tint: str = ""
    """Hexadecimal."""


def find_copies(images: Sequence[Identity], findings: Findings) -> None:
    """Add repeated ids, duplicates and near duplicates of the images, given in the order of the dataset."""
    _find_repeated_ids(images, findings)
    originals: dict[str, dict[str, Identity]] = defaultdict(dict)
    for image in images:
        same = originals[image.sha256]
        if same:
            _add_copy(findings, "image", _earlier_copy(same.values(), image), image, "the same bytes as")
        same.setdefault(image.split, image)
    different = [next(iter(same.values())) for same in originals.values()]
    _find_near_copies([image for image in different if image.hash is not None], findings)


def _find_repeated_ids(images: Sequence[Identity], findings: Findings) -> None:
    first: dict[tuple[str, int], Identity] = {}
    for image in images:
        earlier = first.setdefault((image.split, image.image_id), image)
        if earlier is not image:
            findings.add("duplicate image id", Case(
                image.split, image.index, image.file_name,
                f"id {image.image_id} is that of {earlier.index} ({earlier.file_name})"))


def _earlier_copy(copies: Iterable[Identity], image: Identity) -> Identity:
    """An earlier copy, preferably in another split: leakage matters most."""
    return min(copies, key=lambda other: other.split == image.split)


def _find_near_copies(images: list[Identity], findings: Findings) -> None:
    hashes = np.array([image.hash for image in images], np.uint64)
    tints = np.array([list(bytes.fromhex(image.tint)) for image in images], np.int16)
    earlier: dict[int, list[Identity]] = defaultdict(list)
    for one, other in near_pairs(hashes, tints):
        earlier[int(other)].append(images[one])
    for position in sorted(earlier):
        image = images[position]
        _add_copy(findings, "near-duplicate", _earlier_copy(earlier[position], image), image, "looks like")


def _add_copy(findings: Findings, what: str, earlier: Identity, image: Identity, relation: str) -> None:
    if earlier.split != image.split:
        kind = f"{what} in two splits"
    else:
        kind = "duplicate image" if what == "image" else "near-duplicate image"
    findings.add(kind, Case(image.split, image.index, image.file_name,
                            f"{relation} {earlier.split} {earlier.index} ({earlier.file_name})",
                            twin=(earlier.split, earlier.index)))


def near_pairs(hashes: np.ndarray, tints: np.ndarray) -> np.ndarray:
    """Pairs (k, 2) of positions, the smaller first and sorted, whose hashes (n,) uint64 and tints (n, 48) are close.

    Sorted neighbourhoods: two hashes that differ in a few bits agree in a run of the others, so they are close in
    one of the sorted lists of rotated hashes, and only neighbours are compared. The time grows with n, not with
    its square. Up to 64 images no pair is missed.
    """
    found = [np.empty((0, 2), np.int64)]
    for rotation in range(0, 64, ROTATION_BITS):
        rotated = hashes << np.uint64(rotation) | hashes >> np.uint64(64 - rotation) if rotation else hashes
        order = np.argsort(rotated, kind="stable")
        ranked = hashes[order]
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            close = np.flatnonzero(np.bitwise_count(ranked[step:] ^ ranked[:-step]) <= MAX_DIFFERENT_BITS)
            found.append(np.sort(np.stack([order[close], order[close + step]], axis=1), axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    difference = np.abs(tints[pairs[:, 0]] - tints[pairs[:, 1]]).mean(axis=1) if len(pairs) else np.empty(0)
    return pairs[difference <= MAX_TINT_DIFFERENCE]
