"""Growth: what stays of a dataset whose source has changed, and what is written anew.

A row stays where it is as long as its item is the same: name, mark, declared size and annotations. Rows of items that
are gone or mended are marked as removed in the manifest; new and mended items become new shards at the split's end.
What every row was made from is kept in one file for each fingerprint.
"""

import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np

from ... import storage
from ...errors import AlreadyExists, NotFound
from ..history.versions import STATES
from ..manifest import DROPPED, VERSION, Manifest, Shard, load_manifest
from ..reading.columns import read_columns
from ..sources.item import Item, RawSource

ROW = np.dtype([("digest", np.uint64), ("name", np.uint64), ("image_id", np.int64)])
"""What a row was made from; digest 0: it can never be told whether that is still the same."""
MAX_DEAD = 0.25
"""A shard is written anew when a larger share of its rows is removed,"""
MAX_SMALL = 32
"""and the small ones of a split, of less than half of `shard_mb`, when there are more,"""
MAX_EXTRA = 3
"""but at most so many bytes for each byte that changed."""
UNKNOWN_CLASS = "unknown class"
PARALLEL_READS = 8


@dataclass(frozen=True)
class SplitPlan:
    """How a split is made."""

    items: Sequence[Item]
    """Those to write, in order."""
    rows: np.ndarray
    """What they are made from."""
    first: int = 0
    """Number of the first new shard."""
    shards: tuple[Shard, ...] = ()
    """Those that stay, without the rows that do not,"""
    counts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """their objects of each class, (shards, classes),"""
    stay: np.ndarray = field(default_factory=lambda: np.zeros(0, ROW))
    """and what their rows are made from."""


@dataclass(frozen=True)
class Earlier:
    """The dataset at this URI, made by this job from an earlier state of its source."""

    manifest: Manifest
    rows: dict[str, np.ndarray]
    """Split -> what each row was made from."""
    counts: dict[str, np.ndarray]
    """Split -> (shards, classes) objects."""
    class_map: list[int | None]
    missing: frozenset[str]
    """Paths of shards that are not whole."""

    def is_whole(self, digest: str) -> bool:
        """Whether this is the dataset of the input with this digest, with all its files."""
        return self.manifest.source.get("digest") == digest and not self.missing


def earlier(spec, source: RawSource, uri: str, digest: str) -> Earlier | None:
    """The dataset at `uri`, None if there is none or only the rest of this very ingest.

    AlreadyExists if it is of another source, or none knows from what its rows were made.
    """
    try:
        manifest = load_manifest(uri)
    except NotFound:
        return None
    sizes = {info.path: info.num_bytes for info in storage.list_files(uri)}
    missing = frozenset(shard.path for shard in manifest.shards() if sizes.get(shard.path) != shard.num_bytes)
    is_same = manifest.source.get("digest") == digest
    if is_same and not missing:
        return Earlier(manifest, {}, {}, [], missing)
    if is_same and not manifest.source.get("before"):
        return None  # written again, it has the same files
    try:
        with np.load(io.BytesIO(storage.read_bytes(_state_uri(uri, manifest.fingerprint)))) as arrays:
            state = {name: arrays[name] for name in arrays.files}
    except NotFound:
        state = {"about": np.frombuffer(b"{}", np.uint8)}
    about = json.loads(state["about"].tobytes())
    is_same_job = about.get("origin") == _origin(spec)
    if not is_same_job or grows_not(spec):
        reason = f"; of {grows_not(spec)}, it does not grow" if is_same_job else ""
        raise AlreadyExists(uri, f"holds another dataset already ({manifest.summary()}){reason}",
                            "choose another `dataset`, or set `overwrite: true` to replace it, which writes all anew")
    return Earlier(manifest, *({split: state[f"{kind}/{split}"] for split in manifest.splits}
                               for kind in ("rows", "counts")), about["class_map"], missing)


def grows_not(spec) -> str:
    """Why a dataset of this job is only made anew, in words; empty if it grows."""
    return "several sources" if spec.source is None else "generated shapes" if spec.source.format == "shapes" else ""


def _origin(spec) -> list:
    """What the job must have in common with the one that made the dataset."""
    sections = [spec.source] if spec.source else spec.sources
    found = [section.model_dump(mode="json", exclude={"splits", "classes"}) for section in sections]
    return [VERSION, found[0] if spec.source else found, spec.classes]


def _has_own_ids(source: RawSource) -> bool:
    """Whether the source itself gives its images and classes ids."""
    return source.origin["format"] == "coco"


def _state_uri(uri: str, fingerprint: str) -> str:
    return storage.join(uri, STATES, f"{fingerprint}.npz")


def save_state(spec, uri: str, manifest: Manifest, plans: dict[str, SplitPlan], receipts: list[dict],
               class_map: Sequence[int | None]) -> None:
    """Write what the rows of `manifest` were made from, for the next growth."""
    arrays = {"about": np.frombuffer(json.dumps({"origin": _origin(spec), "class_map": class_map}).encode(), np.uint8)}
    for split, plan in plans.items():
        own = [receipt for receipt in receipts if receipt["split"] == split]
        starts = np.cumsum([0, *(receipt["num_items"] for receipt in own)])
        lost = [start + row for start, receipt in zip(starts, own) for row in receipt["lost"]]
        arrays[f"rows/{split}"] = np.concatenate([plan.stay, np.delete(plan.rows, np.array(lost, np.int64))])
        fresh = [receipt["objects_per_class"] for receipt in own if receipt["path"]]
        arrays[f"counts/{split}"] = np.concatenate([
            plan.counts.reshape(-1, len(manifest.classes)), np.reshape(fresh, (-1, len(manifest.classes)))])
    file = io.BytesIO()
    np.savez(file, **arrays)
    storage.write_bytes(_state_uri(uri, manifest.fingerprint), file.getvalue())


# --- classes ----------------------------------------------------------------------------------------------


def stable_classes(source: RawSource, before: Manifest) -> tuple[tuple[str, ...], tuple[int, ...],
                                                                 tuple[int | None, ...]]:
    """Names and source ids of the classes, and the dataset's class for each of the source's.

    Earlier classes keep their place, also without objects; one of a new name with the source id of one that is gone
    takes its place; others follow.
    """
    names, ids = list(before.classes), list(before.source_ids)
    gone = {source_id: place for place, source_id in enumerate(ids) if names[place] not in source.classes}
    class_map = []
    for name, source_id in zip(source.classes, source.class_ids, strict=True):
        place = before.classes.index(name) if name in before.classes else gone.pop(source_id, None)
        if place is None:
            place = len(names)
            names.append(name)
            ids.append(source_id)
        names[place], ids[place] = name, source_id
        class_map.append(place)
    return tuple(names), tuple(ids) if _has_own_ids(source) else tuple(range(len(ids))), tuple(class_map)


# --- rows -------------------------------------------------------------------------------------------------


def item_rows(items: Sequence[Item], class_map: Sequence[int | None], own_ids: bool) -> np.ndarray:
    """(n,) `ROW` of the items; their ids count only if they are the source's own."""
    labels = np.array([-1 if label is None else label for label in (*class_map, None)], np.int32)
    rows = np.zeros(len(items), ROW)
    for number, item in enumerate(items):
        name = item.file_name.encode("utf-8", "surrogatepass")
        rows[number] = _digest(item, name, labels, own_ids), _number(blake2b(name, digest_size=8)), item.image_id
    return rows


def _digest(item: Item, name: bytes, labels: np.ndarray, own_ids: bool) -> int:
    if not item.mark:
        return 0
    digest = blake2b(name, digest_size=8)
    known = item.known()
    settings = (item.image_id if own_ids else None, item.num_bytes, item.mark)
    digest.update(repr((*settings, known and known[1:], known and known[0].problems)).encode("utf-8", "surrogatepass"))
    if known:
        objects = known[0]
        for column in (labels[objects.labels], objects.boxes_xyxy, objects.iscrowd, objects.area, objects.num_rings,
                       objects.ring_lengths, objects.xy):
            digest.update(column.tobytes())
    return _number(digest) or 1


def _number(digest) -> int:
    return int.from_bytes(digest.digest(), "little")


# --- plan -------------------------------------------------------------------------------------------------


def split_plan(spec, uri: str, source: RawSource, split: str, class_map: Sequence[int | None], num_classes: int,
               before: Earlier | None, problems: Sequence[dict]) -> SplitPlan:
    """What stays of the split, and what is written; `problems` are the records of the earlier dataset."""
    items, own_ids = source.splits[split], _has_own_ids(source)
    rows = item_rows(items, class_map, own_ids)
    if before is None or split not in before.rows:
        return SplitPlan(items, rows)
    old, shards = before.rows[split], before.manifest.splits[split].shards
    ends = np.cumsum([shard.num_rows for shard in shards])
    shard_of = np.searchsorted(ends, np.arange(len(old)), side="right")
    usable = np.isin(shard_of, [number for number, shard in enumerate(shards) if shard.path not in before.missing])
    if len(items) and items[0].known() is None:
        usable &= _have_same_labels(old, before.class_map, class_map, split, problems)
    match = _matches(old, usable, rows["digest"])
    kept = np.zeros(len(old), bool)
    kept[match[match >= 0]] = True
    changed = sum(items[number].num_bytes for number in np.flatnonzero(match < 0).tolist())
    kept &= ~np.isin(shard_of, _rewritten(shards, shard_of, kept, changed, spec.shard_mb * 1e6))
    chosen = np.flatnonzero((match < 0) | ~kept[match])
    if not own_ids:
        rows["image_id"] = _stable_ids(old, match, rows)
    stay = [(replace(shard, num_rows=int(alive.sum()), removed=_removed(shard, alive)), counts, alive)
            for shard, alive, counts in zip(shards, np.split(kept, ends[:-1]), before.counts[split], strict=True)
            if alive.any()]
    numbers = [int(shard.path.rpartition("/")[2].partition("-")[0]) for shard in shards]
    return SplitPlan(_taken(items, chosen, None if own_ids else rows["image_id"][chosen]), rows[chosen],
                     max(numbers, default=-1) + 1, tuple(shard for shard, _, _ in stay),
                     _counted(uri, stay, num_classes), old[kept])


def _have_same_labels(old: np.ndarray, map_before: Sequence[int | None], class_map: Sequence[int | None], split: str,
                      problems: Sequence[dict]) -> np.ndarray | bool:
    """Which rows, whose labels are numbers in the image's own file, would have the same labels today."""
    if list(class_map[:len(map_before)]) != list(map_before):
        return False
    if len(class_map) == len(map_before):
        return True
    names = {record["file_name"] for record in problems
             if record["reason"] == UNKNOWN_CLASS and record["split"] == split}
    return ~np.isin(old["name"], _hashes(names))


def _hashes(names: Iterable[str]) -> np.ndarray:
    return np.array([_number(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8)) for name in names],
                    np.uint64)


def _matches(old: np.ndarray, usable: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """(n,) earlier row of each item, each row once at most; -1 where there is none."""
    candidates = np.flatnonzero(usable & (old["digest"] != 0))
    _, of_new, of_old = np.intersect1d(digests, old["digest"][candidates], return_indices=True)
    match = np.full(len(digests), -1)
    match[of_new] = candidates[of_old]
    return match


def _rewritten(shards: Sequence[Shard], shard_of: np.ndarray, kept: np.ndarray, changed_bytes: float,
               shard_bytes: float) -> list[int]:
    """Numbers of the shards whose other rows are written anew, too."""
    total = np.array([shard.num_rows + len(shard.removed) for shard in shards])
    alive = np.bincount(shard_of[kept], minlength=len(shards))
    row_bytes = np.array([shard.num_bytes for shard in shards]) / total
    gone = np.array([shard.num_rows for shard in shards]) - alive
    left = MAX_EXTRA * max(changed_bytes, float((gone * row_bytes).sum()))
    live_bytes = alive * row_bytes
    dead = np.flatnonzero((alive > 0) & (alive < (1 - MAX_DEAD) * total))
    wanted = dead[np.argsort(alive[dead] / total[dead])].tolist()
    small = np.flatnonzero((alive > 0) & (live_bytes < shard_bytes / 2))
    if len(small) > MAX_SMALL:
        wanted += small[np.argsort(live_bytes[small])][:-1].tolist()
    chosen = []
    for number in dict.fromkeys(wanted):
        if live_bytes[number] <= left:
            left -= live_bytes[number]
            chosen.append(number)
    return chosen


def _removed(shard: Shard, alive: np.ndarray) -> tuple[int, ...]:
    """Rows of the file that are removed, when of those that were left these are `alive`."""
    rows = np.delete(np.arange(shard.num_rows + len(shard.removed)), np.array(shard.removed, np.int64))
    return tuple(sorted([*shard.removed, *rows[~alive].tolist()]))


def _stable_ids(old: np.ndarray, match: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) ids: a row's stay, also when it is mended; new ones have their own where it is free, or follow."""
    order = np.argsort(old["name"], kind="stable")
    same = order[np.minimum(np.searchsorted(old["name"], rows["name"], sorter=order), len(old) - 1)]
    by_name = np.where((match < 0) & (old["name"][same] == rows["name"]), same, match)
    ids = np.where(by_name >= 0, old["image_id"][by_name], rows["image_id"])
    unfree = np.flatnonzero((by_name < 0) & np.isin(ids, old["image_id"]))
    ids[unfree] = max(ids.max(initial=-1), old["image_id"].max()) + 1 + np.arange(len(unfree))
    return ids


def _taken(items: Sequence[Item], chosen: np.ndarray, ids: np.ndarray | None) -> Sequence[Item]:
    if ids is None:
        return items.take(chosen) if hasattr(items, "take") else [items[number] for number in chosen.tolist()]
    return [replace(items[number], image_id=image_id)
            for number, image_id in zip(chosen.tolist(), ids.tolist(), strict=True)]


def _counted(uri: str, stay: Sequence[tuple[Shard, np.ndarray, np.ndarray]], num_classes: int) -> np.ndarray:
    """(shards, classes) objects of the rows that stay; only shards of which rows go now are read."""
    def of_shard(entry: tuple[Shard, np.ndarray, np.ndarray]) -> np.ndarray:
        shard, counts, alive = entry
        if alive.all():
            return np.pad(counts, (0, num_classes - len(counts)))
        labels = read_columns(uri, shard, ["labels"])["labels"].combine_chunks().flatten().to_numpy()
        return np.bincount(labels, minlength=num_classes)

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return np.array(list(pool.map(of_shard, stay)), np.int64).reshape(-1, num_classes)


def carried(problems: Iterable[dict], plans: dict[str, SplitPlan]) -> list[dict]:
    """The earlier records of objects in rows that stay."""
    found = []
    for split, plan in plans.items():
        records = [record for record in problems if record["split"] == split and record["image_id"] is not None
                   and record["dropped"] != "image"]
        stays = np.isin(_hashes(record["file_name"] for record in records), plan.stay["name"])
        found += [record for record, stay in zip(records, stays.tolist(), strict=True) if stay]
    return found


def earlier_problems(uri: str) -> list[dict]:
    """The records of what was dropped, as the earlier ingest wrote them."""
    try:
        return [json.loads(line) for line in storage.read_bytes(storage.join(uri, DROPPED)).splitlines()]
    except NotFound:
        return []
