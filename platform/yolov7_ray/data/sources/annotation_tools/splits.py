"""Which split an image belongs to: by the job's places, by the tool's own word, or by the directories."""

import re
from collections.abc import Sequence

from ..yolo_folder import SPLITS
from .entries import stem_of

_FILLERS = ("", "data", "image", "images", "img", "imgs", "label", "labels", "set")


def split_of(paths: Sequence[str], subset: str, places: dict[str, str] | None) -> str | None:
    """The split of an annotation file and its image; with the job's `places`, None outside all of them.

    Else the tool's word for it counts, then the directories, from the inmost; it is train where none names a split.
    """
    if places:
        return next((split for split, place in places.items() if any(_is_below(path, place) for path in paths)), None)
    directories = [part for path in paths for part in reversed(path.split("/")[:-1])]
    for word in [subset, *directories]:
        if known := split_named(word):
            return known
    own = re.sub(r"[^a-z0-9._-]+", "-", subset.lower()).strip("-._")
    return own if own not in ("", "default") else "train"


def split_named(word: str) -> str | None:
    """The split that people mean by `word`, as in train, Validation, train2017, val_images; None for any other word."""
    plain = [part for part in re.split(r"[\W\d_]+", word.lower()) if part not in _FILLERS]
    return next((split for split, words in SPLITS.items() if len(plain) == 1 and plain[0] in words), None)


def split_in_name(path: str) -> str:
    """The one split that a file's name speaks of, as train does in labels-train.json; empty where there is none."""
    found = {split for word in re.split(r"[\W_]+", stem_of(path)) if (split := split_named(word))}
    return found.pop() if len(found) == 1 else ""


def _is_below(path: str, place: str) -> bool:
    plain = place.strip("/").removeprefix("./")
    return plain in ("", ".") or path == plain or path.startswith(plain + "/")
