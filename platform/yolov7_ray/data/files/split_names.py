"""What people call the directories, files and words that mean train, val and test."""

import re
from collections.abc import Iterable

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Split -> its words."""
_FILLERS = ("", "data", "image", "images", "img", "imgs", "label", "labels", "set")


def split_named(word: str) -> str | None:
    """The split that a whole word or name means, as in train, Validation, train2017, val_images; None for others."""
    plain = [part for part in re.split(r"[\W\d_]+", word.lower()) if part not in _FILLERS]
    return next((split for split, words in SPLITS.items() if len(plain) == 1 and plain[0] in words), None)


def split_within(name: str) -> str | None:
    """The one split that a longer name speaks of, as train in instances_train2017.json; None for none, or several."""
    words = [word.lower().removesuffix("set") for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    found = {split for split, known in SPLITS.items() if not set(known).isdisjoint(words)}
    return found.pop() if len(found) == 1 else None


def split_on_path(path: str) -> str | None:
    """The split that a path's last part speaks of, else the one before, and so on."""
    return next((split for part in reversed(path.split("/")) if (split := split_within(part))), None)


def in_order(names: Iterable[str]) -> list[str]:
    """Names of splits: train, val, test, then the others as they come."""
    names = list(names)
    return sorted(names, key=[*SPLITS, *names].index)


def lists_of_splits(paths: Iterable[str]) -> dict[str, str]:
    """Split -> its list of images in ImageSets/, that of trainval as train where there is no other."""
    lists = {path.rpartition("/")[2][:-4].lower(): path for path in sorted(paths, reverse=True)
             if path.lower().endswith(".txt") and "ImageSets/" in path}
    found = {split: lists[word] for split, words in SPLITS.items() for word in reversed(words) if word in lists}
    return found or ({"train": lists["trainval"]} if "trainval" in lists else {})
