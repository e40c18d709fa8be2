"""Images that are there twice: the same id, the same bytes, or nearly the same picture; leakage where splits differ."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .finding import Case, Findings

MAX_DIFFERENT_BITS = 6
"""Of 64. Recompressing and resizing changes a few; pictures that have nothing in common differ by 32."""
MAX_TINT_DIFFERENCE = 8.0
"""Mean difference of the cells' colours in grey levels."""
NEIGHBOURS = 64
"""Hashes that each is compared to in every sorted list."""
ROTATION_BITS = 8


@dataclass(frozen=True, slots=True)
class Identity:
    """What an image is recognised by."""

    split: str
    index: int
    image_id: int
    file_name: str
    sha256: str
    hash: int | None = None
    """None: it was not, or cannot be, decoded."""
    tint: str = ""
    """Hexadecimal."""


def find_copies(images: Sequence[Identity], findings: Findings) -> None:
    """Add repeated ids, copies and near copies of the images, which come in the order of the dataset."""
    _find_repeated_ids(images, findings)
    originals: dict[str, dict[str, Identity]] = defaultdict(dict)
    for image in images:
        same = originals[image.sha256]
        if same:
            _add_pair(findings, "image", _partner(same.values(), image), image, "the same bytes as")
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


def _partner(copies: Iterable[Identity], image: Identity) -> Identity:
    """An earlier copy, of another split where there is one: leakage is what matters."""
    return min(copies, key=lambda other: other.split == image.split)


def _find_near_copies(images: list[Identity], findings: Findings) -> None:
    hashes = np.array([image.hash for image in images], np.uint64)
    tints = np.array([list(bytes.fromhex(image.tint)) for image in images], np.int16)
    partners: dict[int, list[Identity]] = defaultdict(list)
    for one, other in near_pairs(hashes, tints):
        partners[int(other)].append(images[one])
    for position in sorted(partners):
        image = images[position]
        _add_pair(findings, "near-duplicate", _partner(partners[position], image), image, "looks like")


def _add_pair(findings: Findings, what: str, earlier: Identity, image: Identity, relation: str) -> None:
    if earlier.split != image.split:
        kind = f"{what} in two splits"
    else:
        kind = "duplicate image" if what == "image" else "near-duplicate image"
    findings.add(kind, Case(image.split, image.index, image.file_name,
                            f"{relation} {earlier.split} {earlier.index} ({earlier.file_name})",
                            twin=(earlier.split, earlier.index)))


def near_pairs(hashes: np.ndarray, tints: np.ndarray) -> np.ndarray:
    """Pairs (k, 2) of positions, the smaller first and sorted, whose hashes (n,) uint64 and tints (n, 48) are close.

    Sorted neighbourhoods: two hashes that differ in a few bits agree in a run of the others, so in one of the
    sorted lists of rotated hashes they stand close together, and only neighbours are compared. The time grows
    with n, not with its square; up to 64 images nothing can be missed.
    """
    found = [np.empty((0, 2), np.int64)]
    for turn in range(0, 64, ROTATION_BITS):
        rotated = hashes << np.uint64(turn) | hashes >> np.uint64(64 - turn) if turn else hashes
        order = np.argsort(rotated, kind="stable")
        ranked = hashes[order]
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            close = np.flatnonzero(np.bitwise_count(ranked[step:] ^ ranked[:-step]) <= MAX_DIFFERENT_BITS)
            found.append(np.sort(np.stack([order[close], order[close + step]], axis=1), axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    difference = np.abs(tints[pairs[:, 0]] - tints[pairs[:, 1]]).mean(axis=1) if len(pairs) else np.empty(0)
    return pairs[difference <= MAX_TINT_DIFFERENCE]
