"""Splits made by the product: every group of images is assigned by a hash of its name, stratified by class.

The hash alone decides where it can, so that an image stays where it is when others come. A group moves only if a share
of its stratum, the groups whose rarest class is the same, would otherwise be off by more than `TOLERANCE`; then those
nearest to the limit move.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import numpy as np

from ...errors import JobError
from ..sources.item import Item, RawSource

TOLERANCE = 0.02
"""Most that the share of a stratum's objects in a split may differ from the wanted one, where counts allow."""
PARALLEL_READS = 16
DIRECTORY = "directory"
"""`group_by`: images of one directory stay together."""


def with_splits(source: RawSource, ratios: dict[str, float] | None, group_by: str | None = None) -> RawSource:
    """The source with its one split cut into those of `ratios`; the source itself without them.

    JobError if the source has several splits, the pattern matches no file name, or a split would be empty.
    """
    if not ratios:
        return source
    if len(source.splits) > 1:
        raise JobError("splits", f"the source has splits already: {', '.join(source.splits)}",
                       "leave `splits` out, or name one folder in source.splits")
    [items] = source.splits.values()
    groups = group_numbers([item.file_name for item in items], group_by)
    names = [items[first].file_name for first in np.unique(groups, return_index=True)[1]]
    hashes = np.array([_hash(group_of(name, group_by)) for name in names])
    chosen = assigned(groups, hashes, _labels(items), list(ratios.values()), len(source.classes))
    splits = {}
    for number, split in enumerate(ratios):
        indices = np.flatnonzero(chosen == number)
        if not len(indices):
            raise JobError(f"splits.{split}", f"would be empty: {len(hashes):,} groups of {len(items):,} images",
                           "give it a larger share, leave it out, or use a finer group_by")
        splits[split] = items.take(indices) if hasattr(items, "take") else [items[i] for i in indices.tolist()]
    return replace(source, splits=splits, original_ids=_original_ids(source, items, chosen, list(ratios)))


def in_words(source: RawSource) -> str:
    """Images and, where the format tells them in advance, objects of each split."""
    texts = []
    for split, items in source.splits.items():
        labels = _labels(items)
        objects = "" if labels is None else f", {sum(int((of_image >= 0).sum()) for of_image in labels):,} objects"
        texts.append(f"{split} {len(items):,} images{objects}")
    return "; ".join(texts)


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


def assigned(groups: np.ndarray, hashes: np.ndarray, labels: Sequence[np.ndarray] | None, ratios: Sequence[float],
             num_classes: int) -> np.ndarray:
    """(n,) split of each of n images, from their groups, the groups' hashes in [0, 1) and the images' labels."""
    strata, weights = _strata(groups, len(hashes), labels, num_classes)
    limits = np.cumsum(ratios)[:-1]
    of_group = np.zeros(len(hashes), np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        members = members[np.argsort(hashes[members], kind="stable")]
        share = np.concatenate([[0], np.cumsum(weights[members]) / weights[members].sum()])
        cuts = np.searchsorted(hashes[members], limits)
        if labels is not None:
            cuts = [_within(cut, share, limit) for cut, limit in zip(cuts.tolist(), limits, strict=True)]
        of_group[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    return of_group[groups]


def _within(cut: int, share: np.ndarray, limit: float) -> int:
    """The cut, moved as little as needed until its share is right; each split has two, so half the tolerance each."""
    good = np.flatnonzero(np.abs(share - limit) <= TOLERANCE / 2)
    if not len(good):  # too few groups: the closest cut, or the hash's where that would always be an end
        ends = (len(share) - 1) * min(limit, 1 - limit) < 1
        return cut if ends else int(np.abs(share - limit).argmin())
    return int(good[np.abs(good - cut).argmin()])


def _strata(groups: np.ndarray, num_groups: int, labels: Sequence[np.ndarray] | None,
            num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(g,) rarest class of each group, `num_classes` without objects, and its number of objects (or of images)."""
    strata, weights = np.full(num_groups, num_classes), np.bincount(groups, minlength=num_groups)
    if labels is None:
        return strata, weights
    flat = np.concatenate([np.zeros(0, np.int64), *labels]).astype(np.int64)
    of_group = np.repeat(groups, [len(of_image) for of_image in labels])
    of_group, flat = of_group[flat >= 0], flat[flat >= 0]
    totals = np.bincount(flat, minlength=num_classes)
    for label in np.argsort(-totals, kind="stable"):  # the rarest comes last and wins
        counts = np.bincount(of_group[flat == label], minlength=num_groups)
        strata[counts > 0], weights[counts > 0] = label, counts[counts > 0]
    return strata, weights


def _labels(items: Sequence[Item]) -> list[np.ndarray] | None:
    """The labels of each image, read without the images; None if the format does not tell."""
    if not len(items) or items[0].labels() is None:
        return None
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return list(pool.map(lambda item: item.labels(), items))


def _hash(name: str) -> float:
    return int.from_bytes(sha256(name.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48


def _original_ids(source: RawSource, items: Sequence[Item], chosen: np.ndarray, names: list[str]) -> tuple[dict, ...]:
    """The records of original ids, each with the new split of its image."""
    if not any("image_id" in record for record in source.original_ids):
        return source.original_ids
    split_of = {item.image_id: names[number] for item, number in zip(items, chosen.tolist(), strict=True)}
    return tuple(record | {"split": split_of[record["image_id"]]} if "image_id" in record else record
                 for record in source.original_ids)
