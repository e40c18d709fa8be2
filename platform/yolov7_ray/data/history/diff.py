"""What changed between two contents of datasets: images that came, went, moved or were replaced, and labels.

An image is the same if its file name is, or, where it moved, the last part of that. Rows that both contents share are not read, of others only the
annotations: whether an image was replaced is told by what its row was made from, where that is kept.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ... import storage
from ...cluster.resources import plural
from ...errors import JobError, NotFound
from ..manifest import KEPT_MANIFESTS, Manifest, Shard, dataset_root, kept_fingerprints, load_manifest
from ..reading.columns import read_columns
from .versions import STATES

COLUMNS = ("file_name", "height_px", "width_px", "boxes_xyxy", "labels", "iscrowd", "polygons")
EXAMPLES = 3
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class _Row:
    """An image as a content has it."""

    split: str
    labels: tuple[str, ...]
    """Class names of its objects, sorted."""
    annotations: tuple
    """All of its annotations, with class names, comparable."""
    made_from: int | None
    """Digest of its item; None: not known."""


def diff(uri: str, other: str | None = None) -> list[str]:
    """Lines that tell what changed from `uri` to `other`; with one URI, from the content before to that."""
    if other is None:
        uri, other = _before(uri), uri
    before, after = load_manifest(storage.absolute(uri)), load_manifest(storage.absolute(other))
    old_root, new_root = (dataset_root(storage.absolute(place)) for place in (uri, other))
    is_comparable = old_root == new_root and before.classes == after.classes[:len(before.classes)]
    old = _rows(old_root, before, _shards(after) if is_comparable else {})
    new = _rows(new_root, after, _shards(before) if is_comparable else {})
    return [f"{uri} ({before.fingerprint[:12]}) -> {other} ({after.fingerprint[:12]})",
            f"  before: {before.summary()}", f"  now:    {after.summary()}",
            *_class_lines(before, after), *_lines(old, new)]


def _before(uri: str) -> str:
    """The kept content that was written last before the one at `uri`; JobError if there is none."""
    root, fingerprint = dataset_root(storage.absolute(uri)), load_manifest(storage.absolute(uri)).fingerprint
    previous = load_manifest(storage.absolute(uri)).source.get("before")
    if previous not in kept_fingerprints(root):
        raise JobError(uri, f"has no content before {fingerprint[:12]} that is kept",
                       f"give two URIs; kept below {storage.join(root, KEPT_MANIFESTS)}: "
                       f"{', '.join(kept[:12] for kept in kept_fingerprints(root)) or 'none'}")
    return f"{root}@{previous[:12]}"


def _shards(manifest: Manifest) -> dict[tuple[str, str], Shard]:
    return {(name, shard.path): shard for name, split in manifest.splits.items() for shard in split.shards}


def _live(shard: Shard) -> np.ndarray:
    return np.delete(np.arange(shard.num_rows + len(shard.removed)), np.array(shard.removed, np.int64))


def _rows(root: str, manifest: Manifest, others: dict[tuple[str, str], Shard]) -> dict[str, list[_Row]]:
    """File name -> its rows that are not in `others`, too; the same name may be in several splits."""
    digests, found = _digests(root, manifest), {}
    for name, split in manifest.splits.items():
        first = 0
        for shard in split.shards:
            live, other = _live(shard), others.get((name, shard.path))
            own = ~np.isin(live, _live(other)) if other else np.ones(len(live), bool)
            if own.any():
                removed = tuple(sorted([*shard.removed, *live[~own].tolist()]))
                made_from = (digests[name][first:first + len(live)][own].tolist() if name in digests
                             else [None] * int(own.sum()))
                for digest, (file_name, *row) in zip(made_from, _read(root, manifest, replace(shard, removed=removed)),
                                                     strict=True):
                    found.setdefault(file_name, []).append(_Row(name, *row, digest))
            first += len(live)
    return found


def _digests(root: str, manifest: Manifest) -> dict[str, np.ndarray]:
    """Split -> digest of each row's item; nothing where they are not kept."""
    try:
        data = storage.read_bytes(storage.join(root, STATES, f"{manifest.fingerprint}.npz"))
    except NotFound:
        return {}
    with np.load(io.BytesIO(data)) as arrays:
        return {name: arrays[f"rows/{name}"]["digest"] for name in manifest.splits}


def _read(root: str, manifest: Manifest, shard: Shard) -> Iterator[tuple[str, tuple, tuple]]:
    """File name, class names and annotations of each row."""
    for batch in read_columns(root, shard, COLUMNS).to_batches(ROWS_AT_ONCE):
        for row in batch.to_pylist():
            labels = [manifest.classes[label] for label in row["labels"]]
            objects = zip(labels, row["boxes_xyxy"], row["iscrowd"], row["polygons"], strict=True)
            yield row["file_name"], tuple(sorted(labels)), (
                row["height_px"], row["width_px"], tuple(sorted(map(repr, objects))))


def _class_lines(before: Manifest, after: Manifest) -> Iterator[str]:
    for what, names in (("came", [name for name in after.classes if name not in before.classes]),
                        ("went", [name for name in before.classes if name not in after.classes])):
        if names:
            yield f"  classes that {what}: {', '.join(names)}"


def _lines(old: dict[str, list[_Row]], new: dict[str, list[_Row]]) -> list[str]:
    found: dict[str, list[str]] = {}
    changes: Counter[str] = Counter()
    gone, come = {}, {}
    for name in sorted(old.keys() | new.keys()):
        before, after = ({row.split: row for row in rows.get(name, ())} for rows in (old, new))
        for split in before.keys() & after.keys():
            _compare(name, before.pop(split), after.pop(split), found, changes)
        for left, rows in ((gone, before), (come, after)):
            for row in rows.values():
                left.setdefault(name.rpartition("/")[2], []).append((name, row))
    for base, rows in sorted(come.items()):
        if len(rows) == len(gone.get(base, ())) == 1:  # also in another directory, as that of another split
            [(_, before)], [(name, row)] = gone.pop(base), rows
            where = f"from {before.split} to {row.split}" if before.split != row.split else f"within {row.split}"
            found.setdefault(f"moved {where}", []).append(name)
            _compare(name, before, row, found, changes, moved=True)
            rows.clear()
    for what, rows in (("came to", come), ("went from", gone)):
        for name, row in sorted((entry for entries in rows.values() for entry in entries), key=lambda entry: entry[0]):
            found.setdefault(f"{what} {row.split}", []).append(name)
    lines = [f"  {plural(len(names), 'image')} {what}, e.g. {', '.join(names[:EXAMPLES])}"
             for what, names in sorted(found.items())]
    lines += [f"    objects of {name}: {count:+,}" for name, count in sorted(changes.items()) if count]
    return lines or ["  no image and no label changed"]


def _compare(name: str, old: _Row, new: _Row, found: dict[str, list[str]], changes: Counter,
             moved: bool = False) -> None:
    if old.annotations != new.annotations:
        found.setdefault("with other labels", []).append(name)
        changes.update(Counter(new.labels))
        changes.subtract(Counter(old.labels))
    elif not moved and None not in (old.made_from, new.made_from) and old.made_from != new.made_from:
        found.setdefault("replaced or written again, with the same labels", []).append(name)
