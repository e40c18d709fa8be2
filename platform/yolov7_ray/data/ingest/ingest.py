"""Raw images and annotations → an Arrow dataset, with Ray Data: items → shards → manifest.

The driver reads the lists and annotations, cuts them into shards, and hands each shard as one row to Ray Data,
whose tasks read the images and write the files; image bytes never pass through the driver or the object store.
The manifest is written last. Memory is bounded by a record batch per running task, plus the annotations in the
driver: columns (COCO, YOLO, Parquet, WebDataset), small records (others) or nothing (generated shapes).
"""

import hashlib
import itertools
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from ... import storage
from ...errors import JobError
from ...jobs.progress_line import ProgressLine
from ...program import command
from ..history.versions import RECEIPTS, follow, kept_manifests, remove_unnamed
from ..manifest import DROPPED, KEPT_MANIFESTS, MANIFEST, VERSION, Manifest, Shard, Split
from ..sources.item import RawSource
from ..sources.read import read_all
from .growth import Earlier, SplitPlan, carried, earlier, earlier_problems, save_state, split_plan, stable_classes
from .losses import Loss, check_losses, class_notes, losses, table, totals
from .shards import ShardTask, plan_shards, strict_error, write_shard
from .splits import with_splits

SOURCE_IDS = "source-ids.jsonl"
"""The source's ids where they are no numbers, and the numbers that stand for them in the dataset."""
REFUSED = "refused.jsonl"
"""The list of all losses of a job that failed for them."""


def ingest(spec, run_name: str) -> dict:
    """Run the ingest job `spec`; returns the dataset's URI and fingerprint.

    A dataset made from the same input is kept, one made by this job from an earlier state of its source grows (see
    `growth`); another one at this URI is an error unless `overwrite`. JobError for errors that the user can fix.
    """
    uri = storage.absolute(spec.dataset)
    storage.check_access(uri, write=True)
    started = time.monotonic()
    source, understood = read_all(spec)
    for line in understood if spec.sources or spec.source.format == "auto" else ():
        print(f"{run_name}: {line}")
    known = [*itertools.chain(*source.problems.values())]
    if spec.strict and (first := next((record for record in known if record["dropped"]), None)):
        raise strict_error(first)
    _check_losses(spec, uri, known, {"image": sum(map(len, source.splits.values()))})
    source, made = with_splits(source, spec.splits, spec.group_by, spec.pool)
    if made:
        print(f"{run_name}: splits made: {made}")
    classes, class_ids, class_map = _select_classes(source, spec.classes)
    digest = _input_digest(spec, source)
    before = None if spec.overwrite else earlier(spec, source, uri, digest)
    if before and before.is_whole(digest):
        if storage.exists(storage.join(uri, RECEIPTS)):  # left by an interrupted ingest of what the source was then
            _remove_obsolete(uri, before.manifest, True)
        print(f"{run_name}: {uri} is up to date: {before.manifest.summary()}")
        return {"dataset": spec.dataset, "fingerprint": before.manifest.fingerprint}
    if before and spec.classes is None:
        classes, class_ids, class_map = stable_classes(source, before.manifest)
    old_problems = earlier_problems(uri) if before else []
    plans = {split: split_plan(spec, uri, source, split, class_map, len(classes), before, old_problems)
             for split in source.splits}
    storage.write_bytes(storage.join(uri, RECEIPTS, "started"), run_name.encode())  # `prune` waits
    receipts = _write_shards(_plan(spec, uri, plans, class_map, len(classes), _receipts_name(digest, before)))
    manifest, problems = _assemble(spec, uri, source, classes, class_ids, digest, receipts, plans,
                                   carried(old_problems, plans))
    save_state(spec, uri, manifest, plans, receipts, class_map)
    if before:
        follow(uri, manifest, before.manifest)
    storage.write_bytes(storage.join(uri, DROPPED), _listed(problems))
    if source.original_ids:
        storage.write_bytes(storage.join(uri, SOURCE_IDS), _listed(source.original_ids))
    storage.write_json(storage.join(uri, MANIFEST), manifest.to_json())
    _remove_obsolete(uri, manifest, before is not None)
    image_bytes = sum(receipt["image_bytes"] for receipt in receipts)
    _report(run_name, uri, manifest, losses(problems), image_bytes, time.monotonic() - started)
    if before:
        print(f"  {sum(len(plan.stay) for plan in plans.values()):,} images stay where they were; what has changed: " + 
              command(f"diff {uri}"))
    return {"dataset": spec.dataset, "fingerprint": manifest.fingerprint}


# --- preparation ----------------------------------------------------------------------------------------


def _select_classes(source: RawSource, wanted: list[str] | dict[str, list[str]] | None,
                    ) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int | None, ...]]:
    """Names and source ids of the dataset's classes, and for each source class its dataset index or None.

    A class that is merged from several has the id of the first.
    """
    if wanted is None:
        return source.classes, source.class_ids, tuple(range(len(source.classes)))
    mapping = wanted if isinstance(wanted, dict) else {name: [name] for name in wanted}
    named = [name for names in mapping.values() for name in names]
    unknown = [name for name in named if name not in source.classes]
    repeats = len(set(named)) < len(named) or len(mapping) < len(wanted)
    if unknown or not all(mapping.values()) or not mapping or repeats:
        problem = f"{', '.join(map(repr, unknown))} is not in the source" if unknown else "is empty or repeats a name"
        raise JobError("classes", problem, f"the source has {', '.join(source.classes)}")
    label_of = {name: label for label, names in enumerate(mapping.values()) for name in names}
    ids = tuple(source.class_ids[source.classes.index(names[0])] for names in mapping.values())
    return tuple(mapping), ids, tuple(label_of.get(name) for name in source.classes)


def _input_digest(spec, source: RawSource) -> str:
    """Digest of everything that determines the dataset's content, without reading the images."""
    digest = hashlib.sha256()
    chosen = [VERSION, source.origin["format"], spec.classes, spec.shard_mb, source.classes, source.class_ids,
              source.inputs, list(source.splits)]
    digest.update(json.dumps(chosen).encode())
    for items in source.splits.values():
        digest.update(b"split")
        for item in items:
            digest.update(f"{item.image_id}|{item.file_name}|{item.num_bytes}|{item.mark}\n".encode())
    if source.origin["format"] == "shapes":
        digest.update(str(spec.source.seed).encode())
    return digest.hexdigest()


# --- shards ---------------------------------------------------------------------------------------------


def _receipts_name(digest: str, before: Earlier | None) -> str:
    return digest[:16] + (f"-{before.manifest.fingerprint[:16]}" if before else "")


def _plan(spec, uri: str, plans: dict[str, SplitPlan], class_map: tuple, num_classes: int,
          name: str) -> list[ShardTask]:
    receipts = storage.join(uri, RECEIPTS, name)
    return [ShardTask(uri, split, number, items, class_map, num_classes, receipts, spec.strict)
            for split, plan in plans.items()
            for number, items in enumerate(plan_shards(plan.items, spec.shard_mb * 1e6), plan.first)]


def _write_shards(tasks: list[ShardTask]) -> list[dict]:
    """Receipts of all shards in order; those left by an interrupted job are reused."""
    finished = _finished(tasks)
    num_items = {task.name: len(task.items) for task in tasks}
    progress = ProgressLine("ingest", sum(num_items.values()), "images")
    image_bytes = 0
    try:
        for receipt in _run([task for task in tasks if task.name not in finished]):
            name = f"{receipt['split']}/{receipt['number']:05d}"
            finished[name] = receipt
            image_bytes += receipt["image_bytes"]
            progress.advance(num_items[name], f"{image_bytes / 1e6:,.0f} MB")
    finally:
        progress.close()
    return [finished[task.name] for task in tasks]


def _finished(tasks: list[ShardTask]) -> dict[str, dict]:
    if not tasks:
        return {}
    sizes = {info.path: info.num_bytes for info in storage.list_files(tasks[0].dataset)}
    receipts = [storage.read_json(storage.join(tasks[0].receipts, info.path))
                for info in storage.list_files(tasks[0].receipts)]
    return {f"{receipt['split']}/{receipt['number']:05d}": receipt for receipt in receipts
            if "lost" in receipt and (receipt["path"] is None or sizes.get(receipt["path"]) == receipt["num_bytes"])}


def _run(tasks: list[ShardTask]) -> Iterator[dict]:
    """Write shards in parallel, one Ray Data task each; yields receipts as they finish."""
    if not tasks:
        return
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False  # ProgressLine replaces them
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it logs the plan of each execution, and that bars are off
    references = [ray.put(task) for task in tasks]
    rows = ray.data.range(len(tasks), override_num_blocks=len(tasks)).map(_write_row, fn_args=(references,))
    for row in rows.iter_rows():
        outcome = json.loads(row["outcome"])
        if "error" in outcome:
            raise JobError(*outcome["error"])
        yield outcome


def _write_row(row: dict, references: list) -> dict:
    """Row function for Ray Data; a JobError is returned as a value, so that the user sees it unchanged."""
    import ray

    try:
        outcome = write_shard(ray.get(references[row["id"]]))
    except JobError as error:
        outcome = {"error": error.args}
    return {"outcome": json.dumps(outcome)}


# --- manifest -------------------------------------------------------------------------------------------


def _assemble(spec, uri: str, source: RawSource, classes: tuple, class_ids: tuple, digest: str,
              receipts: list[dict], plans: dict[str, SplitPlan], kept_problems: list[dict],
              ) -> tuple[Manifest, list[dict]]:
    problems = [record for split in dict.fromkeys([*source.splits, *source.problems])
                for record in [*source.problems.get(split, ()),
                               *(record for record in kept_problems if record["split"] == split),
                               *(record for r in receipts if r["split"] == split for record in r["problems"])]]
    splits = {split: _split(split, plan, [receipt for receipt in receipts if receipt["split"] == split], len(classes),
                            [record for record in problems if record["split"] == split])
              for split, plan in plans.items()}
    per_class = [sum(counts) for counts in zip(*(split.objects_per_class for split in splits.values()), strict=True)]
    problems += class_notes(spec.classes, per_class)
    kept = {"image": sum(split.num_rows for split in splits.values()),
            "object": sum(split.num_objects for split in splits.values())}
    _check_losses(spec, uri, problems, kept)
    found = losses(problems)
    dropped: Counter[str] = Counter()
    for loss in found:
        dropped[loss.reason] += loss.count
    origin = {**source.origin, "digest": digest}
    return Manifest(classes, class_ids, splits, origin, dict(sorted(dropped.items())),
                    tuple(asdict(loss) for loss in found)), problems


def _listed(problems: Iterable[dict]) -> bytes:
    return "".join(json.dumps(record, sort_keys=True) + "\n" for record in problems).encode()


def _check_losses(spec, uri: str, problems: list[dict], kept: dict[str, int]) -> None:
    """JobError if too much is lost; the whole list then lies in the dataset's directory, which has no manifest."""
    try:
        check_losses("source", losses(problems), kept, spec.max_loss,
                     f"; all are listed in {storage.join(uri, REFUSED)}")
    except JobError:
        storage.write_bytes(storage.join(uri, REFUSED), _listed(problems))
        raise


def _split(name: str, plan: SplitPlan, receipts: list[dict], num_classes: int, problems: list[dict]) -> Split:
    shards = plan.shards + tuple(Shard(r["path"], r["num_rows"], r["num_bytes"], r["sha256"])
                                 for r in receipts if r["path"])
    if not shards:
        lost = losses(record for record in problems if record["dropped"])
        raise JobError(f"source.splits.{name}", f"every image is lost: {lost[0]}" if lost else "holds no images",
                       "mend the source, check source.uri and source.splits, or leave this split out")
    stay = plan.counts.sum(0).tolist() if len(plan.shards) else [0] * num_classes
    per_class = tuple(sum((r["objects_per_class"][label] for r in receipts), stay[label])
                      for label in range(num_classes))
    return Split(shards, sum(shard.num_rows for shard in shards), sum(per_class), per_class)


def _remove_obsolete(uri: str, manifest: Manifest, has_grown: bool) -> None:
    """Remove receipts and shards of replaced or interrupted datasets, and no other files."""
    if not has_grown:
        storage.delete(storage.join(uri, KEPT_MANIFESTS))
    storage.delete(storage.join(uri, RECEIPTS))
    storage.delete(storage.join(uri, REFUSED))
    remove_unnamed(uri, [manifest, *kept_manifests(uri)])


def _report(run_name: str, uri: str, manifest: Manifest, found: list[Loss], image_bytes: int, elapsed_s: float) -> None:
    print(f"{run_name}: {manifest.summary()}; {image_bytes / 1e6:,.1f} MB in {elapsed_s:.1f} s -> {uri}")
    for line in table(found):
        print(f"  {line}")
    if found:
        print(f"  {totals(found)}; all are listed in {storage.join(uri, DROPPED)}")
    for name, empty in _empty_classes(manifest):
        print(f"  split {name} has no object of {', '.join(empty)}")


def _empty_classes(manifest: Manifest) -> Iterable[tuple[str, list[str]]]:
    for name, split in manifest.splits.items():
        empty = [label for label, count in zip(manifest.classes, split.objects_per_class, strict=True) if not count]
        if empty:
            yield name, empty
