"""Which split a table is: by the words in its name, else in its directory's."""

import re
from collections.abc import Iterable

from ....errors import JobError
from ..yolo_folder import SPLITS


def split_of(path: str) -> str:
    """train, val or test by a whole word of the path, the last part first; train where there is none."""
    for part in reversed(path.lower().split("/")):
        words = re.split(r"[^a-z]+", part)
        found = [split for split, names in SPLITS.items() if any(name in words for name in names + ((
            "validation",) if split == "val" else ()))]
        if len(found) == 1:
            return found[0]
    return "train"


def by_split(paths: Iterable[str]) -> dict[str, str]:
    """Split -> table; JobError where two may be the same."""
    chosen: dict[str, str] = {}
    for path in paths:
        split = split_of(path)
        if split in chosen:
            raise JobError("source.splits", f"{chosen[split]} and {path} may both be split '{split}'",
                           "name the table of each split: source.splits: {train: …, val: …}")
        chosen[split] = path
    return chosen
