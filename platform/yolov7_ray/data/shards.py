"""Planning and writing shards: which items go into which, and each shard's bytes, depend on the input alone."""

import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from .. import storage
from ..errors import JobError
from .rows import CLIPPED, Row, build_row
from .schema import ARROW_SCHEMA
from .sources import Item, Problem, Raw, problem_record

BATCH_BYTES = 16 << 20
"""Images are held in memory up to this size before they are written as one record batch."""
READ_AHEAD = 16


@dataclass(frozen=True, slots=True)
class ShardTask:
    """All that a process anywhere needs for writing one shard."""

    dataset: str
    split: str
    number: int
    items: tuple[Item, ...]
    class_map: tuple[int | None, ...]
    num_classes: int
    receipts: str
    """Directory where finished shards leave a note, so that an interrupted job need not repeat them."""
    strict: bool

    @property
    def name(self) -> str:
        """Of the shard, before its content is known."""
        return f"{self.split}/{self.number:05d}"


def plan_shards(items: Sequence[Item], shard_bytes: float) -> Iterator[tuple[Item, ...]]:
    """Cut items, in order, into groups of about `shard_bytes`, never an empty one."""
    group: list[Item] = []
    size = 0
    for item in items:
        if group and size + item.num_bytes > shard_bytes:
            yield tuple(group)
            group, size = [], 0
        group.append(item)
        size += item.num_bytes
    if group:
        yield tuple(group)


def write_shard(task: ShardTask) -> dict:
    """Write one shard and its receipt, which is returned: path, sizes, digest, counts and problems.

    The file is named by its content, so writing it again changes nothing. With `strict` the first problem
    (a clipped box is none) is a JobError. A shard whose images are all bad has `path` None.
    """
    receipt = {"split": task.split, "number": task.number, "path": None, "num_rows": 0, "num_bytes": 0,
               "sha256": "", "objects_per_class": [0] * task.num_classes, "problems": [], "image_bytes": 0}
    with storage.staged(None if storage.is_remote(task.dataset) else task.receipts) as (file, path):
        _write_rows(task, file, receipt)
        file.flush()
        if receipt["num_rows"]:
            sha256 = storage.digest(path)
            receipt |= {"path": f"{task.name}-{sha256[:12]}.arrow", "num_bytes": path.stat().st_size,
                        "sha256": sha256}
            storage.upload(path, storage.join(task.dataset, receipt["path"]))
    storage.write_bytes(storage.join(task.receipts, f"{task.split}-{task.number:05d}.json"),
                        json.dumps(receipt).encode())
    return receipt


def _write_rows(task: ShardTask, file: BinaryIO, receipt: dict) -> None:
    counts: Counter[int] = Counter()
    pending: list[Row] = []
    pending_bytes = 0
    with pa.ipc.new_file(file, ARROW_SCHEMA) as writer:
        for item, raw in _fetched(task.items):
            row, problems = build_row(item, raw, task.class_map)
            _note(task, item, problems, receipt)
            if row is None:
                continue
            if pending and pending_bytes + len(row.image) > BATCH_BYTES:
                writer.write_batch(_record_batch(pending))
                pending, pending_bytes = [], 0
            pending.append(row)
            pending_bytes += len(row.image)
            counts.update(row.labels)
            receipt["num_rows"] += 1
            receipt["image_bytes"] += len(row.image)
        if pending:
            writer.write_batch(_record_batch(pending))
    receipt["objects_per_class"] = [counts[label] for label in range(task.num_classes)]


def _fetched(items: Sequence[Item]) -> Iterator[tuple[Item, Raw]]:
    """Items with their bytes, in order, a few read ahead: an object store answers late but in parallel."""
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        ahead: deque[tuple[Item, Future[Raw]]] = deque()
        for item in items:
            ahead.append((item, pool.submit(item.fetch)))
            if len(ahead) > READ_AHEAD:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()


def _note(task: ShardTask, item: Item, problems: list[Problem], receipt: dict) -> None:
    for problem in problems:
        record = problem_record(task.split, problem, item.file_name, item.image_id)
        if problem.reason == CLIPPED:
            record["dropped"] = None
        elif task.strict:
            raise strict_error(record)
        receipt["problems"].append(record)


def strict_error(record: dict) -> JobError:
    """The error that ends a strict job at its first bad row."""
    return JobError(f"{record['split']}: {record['file_name'] or 'annotations'}",
                    ": ".join(filter(None, (record["reason"], record["detail"]))),
                    "repair the source, or set `strict: false` to drop and list such rows")


def _record_batch(rows: list[Row]) -> pa.RecordBatch:
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in ARROW_SCHEMA]
    return pa.record_batch(columns, schema=ARROW_SCHEMA)
