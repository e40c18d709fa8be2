"""Which split an image belongs to: by the job's places, by the tool's own word, or by the directories."""

import re
from collections.abc import Sequence

from ...files.split_names import split_named


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


def _is_below(path: str, place: str) -> bool:
    plain = place.strip("/").removeprefix("./")
    return plain in ("", ".") or path == plain or path.startswith(plain + "/")
