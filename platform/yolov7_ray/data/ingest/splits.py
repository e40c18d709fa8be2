"""Splits made by the product: every group of images is assigned by a hash of its name, balanced by class.

The hash alone decides where it can, so that most images stay where they are when others come; see `stratification`.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from ...errors import JobError
from ..sources.item import Item, RawSource
from ..sources.several.joined import pooled, taken
from .stratification import ENOUGH_OBJECTS, Entries, balanced

PARALLEL_READS = 16
READ_TOGETHER = 256
"""Images whose labels one task of a thread reads."""
DIRECTORY = "directory"
"""`group_by`: images of one directory stay together."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The labels of n images as columns."""

    counts: np.ndarray
    """(n,) objects of each image, unusable ones included."""
    flat: np.ndarray
    """Class of each object, image by image; negative: unusable."""


def with_splits(source: RawSource, ratios: dict[str, float] | None, group_by: str | None = None,
                pool: bool = False) -> tuple[RawSource, str]:
    """The source with its one split cut into those of `ratios`, and that in words; the source itself without them.

    JobError if the source has several splits and `pool` is false, the pattern matches no file name, or a split would
    be empty.
    """
    if not ratios:
        return source, ""
    names = ", ".join(source.splits)
    if len(source.splits) > 1 and not pool:
        raise JobError("splits", f"the source has splits already: {names}",
                       "leave `splits` out to keep them, set `pool: true` to cut all their images anew, or name one "
                       "folder in source.splits")
    source = pooled(source) if len(source.splits) > 1 else source
    [items] = source.splits.values()
    groups = group_numbers([item.file_name for item in items], group_by)
    hashes = np.array([_hash(group_of(items[first].file_name, group_by))
                       for first in np.unique(groups, return_index=True)[1].tolist()])
    labels = _labels(items)
    chosen = assigned(groups, hashes, labels, list(ratios.values()), len(source.classes))
    splits, texts = {}, []
    for number, split in enumerate(ratios):
        indices = np.flatnonzero(chosen == number)
        if not len(indices):
            raise JobError(f"splits.{split}", f"would be empty: {len(hashes):,} groups of {len(items):,} images",
                           "give it a larger share, leave it out, or use a finer group_by")
        splits[split] = taken(items, indices)
        objects = "" if labels is None else f", {_num_objects(labels, chosen == number):,} objects"
        texts.append(f"{split} {len(indices):,} images{objects}")
    words = "; ".join(texts) + (f" (pooled: {names})" if pool and "," in names else "")
    return replace(source, splits=splits, original_ids=_original_ids(source, items, chosen, list(ratios))), words


def group_of(name: str, group_by: str | None) -> str:
    """The group of a file name: the pattern's first group or whole match, else the name itself."""
    if group_by == DIRECTORY:
        return name.rpartition("/")[0]
    match = group_by and re.search(group_by, name)
    return (match[1] if match.re.groups and match[1] is not None else match[0]) if match else name


def group_numbers(names: Sequence[str], group_by: str | None) -> np.ndarray:
    """(n,) number of each name's group; JobError if the pattern matches none of them."""
    if group_by not in (None, DIRECTORY) and names and not any(re.search(group_by, name) for name in names):
        raise JobError("group_by", f"{group_by!r} matches no file name, e.g. {names[0]}",
                       f"give a regular expression, or `{DIRECTORY}`")
    known: dict[str, int] = {}
    return np.fromiter((known.setdefault(group_of(name, group_by), len(known)) for name in names), np.int64, len(names))


def assigned(groups: np.ndarray, hashes: np.ndarray, labels: Labels | None, ratios: Sequence[float],
             num_classes: int) -> np.ndarray:
    """(n,) split of each of n images, from their groups, the groups' hashes in [0, 1) and the images' labels.

    Images without objects are balanced as if they had a class of their own, and the images altogether as another.
    """
    if labels is None:
        of_group = np.searchsorted(np.cumsum(ratios)[:-1], hashes, side="right")
        return of_group[groups]
    usable = labels.flat >= 0
    of_image = np.repeat(np.arange(len(groups)), labels.counts)[usable]
    empty = np.flatnonzero(np.bincount(of_image, minlength=len(groups)) == 0)
    every = np.arange(len(groups) if len(groups) >= ENOUGH_OBJECTS else 0)
    images = np.concatenate([of_image, empty, every])
    classes = np.concatenate([labels.flat[usable], np.full(len(empty), num_classes),
                              np.full(len(every), num_classes + 1)])
    return balanced(hashes, Entries.of(groups[images], classes, num_classes + 2), np.asarray(ratios))[groups]


def _labels(items: Sequence[Item]) -> Labels | None:
    """The labels of each image, read without the images; None if the format does not tell."""

    def read(first: int) -> Labels | None:
        found = [item.labels() for item in items[first:first + READ_TOGETHER]]
        return None if not found or any(of_image is None for of_image in found) else Labels(
            np.array([len(of_image) for of_image in found], np.int32), np.concatenate(found).astype(np.int32))

    if (first := read(0)) is None:
        return None
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        pieces = [first, *pool.map(read, range(READ_TOGETHER, len(items), READ_TOGETHER))]
    return None if None in pieces else Labels(np.concatenate([piece.counts for piece in pieces]),
                                              np.concatenate([piece.flat for piece in pieces]))


def _num_objects(labels: Labels, wanted: np.ndarray) -> int:
    return int((np.repeat(wanted, labels.counts) & (labels.flat >= 0)).sum())


def _hash(name: str) -> float:
    return int.from_bytes(sha256(name.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48


def _original_ids(source: RawSource, items: Sequence[Item], chosen: np.ndarray, names: list[str]) -> tuple[dict, ...]:
    """The records of original ids, each with the new split of its image."""
    if not any("image_id" in record for record in source.original_ids):
        return source.original_ids
    split_of = {item.image_id: names[number] for item, number in zip(items, chosen.tolist(), strict=True)}
    return tuple(record | {"split": split_of[record["image_id"]]} if "image_id" in record else record
                 for record in source.original_ids)
