"""Which split a table is: by the words in its name, else in its directory's."""

import fnmatch
import re
from collections.abc import Iterable

from ....errors import JobError
from ...files.split_names import in_order, split_on_path

_NUMBERED = re.compile(r"(.+?)-\d{5}-of-\d{5}\b")
"""How Hugging Face calls the files of a split."""


def by_split(paths: Iterable[str], remedy: str = "name the table of each split: source.splits: {train: …, val: …}",
             ) -> dict[str, str]:
    """Split -> annotation file; JobError where two may be the same."""
    chosen: dict[str, str] = {}
    for path in paths:
        split = split_on_path(path) or "train"
        if split in chosen:
            raise JobError("source.splits", f"{chosen[split]} and {path} may both be split '{split}'",
                           remedy)
        chosen[split] = path
    return chosen


def shards_by_split(paths: Iterable[str], places: dict[str, str] | None) -> tuple[dict[str, list[str]], list[str]]:
    """Split -> files that hold it together, and the files of none.

    With the job's `places` those at or below one, which may be a pattern such as `train-*.tar`, else as they are called.
    """
    found: dict[str, list[str]] = {split: [] for split in places or ()}
    aside = []
    for path in paths:
        split = (next((split for split, place in places.items() if _is_at(path, place)), None) if places
                 else _split_of_shard(path))
        if split is None:
            aside.append(path)
        else:
            found.setdefault(split, []).append(path)
    if empty := next((split for split, files in found.items() if not files), None):
        raise JobError(f"source.splits.{empty}", f"no file is at {places[empty]}", "check source.uri and source.splits")
    return {split: found[split] for split in in_order(found)}, aside


def _is_at(path: str, place: str) -> bool:
    plain = place.removeprefix("./").strip("/")
    return plain in ("", ".") or path == plain or path.startswith(plain + "/") or fnmatch.fnmatchcase(path, plain)


def _split_of_shard(path: str) -> str:
    """The split that the path speaks of, else NAME of NAME-00000-of-00002, else train."""
    numbered = _NUMBERED.match(path.rpartition("/")[2])
    own = re.sub(r"[^a-z0-9._-]+", "-", numbered[1].lower()).strip("-._") if numbered else ""
    return split_on_path(path) or own or "train"
