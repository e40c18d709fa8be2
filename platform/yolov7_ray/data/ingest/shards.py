"""Planning and writing shards: their items and bytes depend on the input alone."""

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from ... import storage
from ...errors import JobError
from ..manifest import ARROW_SCHEMA
from ..sources.item import Item, Raw, changes, fetched, problem_record
from ..sources.objects import Problem
from .rows import KEPT, LEFT_OUT, Row, build_row, record_batch

BATCH_BYTES = 16 << 20
"""Images are held in memory up to this size before they are written as one record batch."""
READERS = 16
READ_BYTES = 500_000
"""Bytes per read task of a thread: handing over small images one by one would cost more than reading them."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Everything a process on any node needs to write one shard."""

    dataset: str
    split: str
    number: int
    items: Sequence[Item]
    class_map: tuple[int | None, ...]
    num_classes: int
    receipts: str
    """Directory of the receipts of finished shards, so that an interrupted job does not repeat them."""
    strict: bool

    @property
    def name(self) -> str:
        """Name of the shard without its content digest."""
        return f"{self.split}/{self.number:05d}"


def plan_shards(items: Sequence[Item], shard_bytes: float) -> Iterator[Sequence[Item]]:
    """Cut items, in order, into slices of about `shard_bytes`, never empty."""
    first = size = 0
    for index, item in enumerate(items):
        if index > first and size + item.num_bytes > shard_bytes:
            yield items[first:index]
            first, size = index, 0
        size += item.num_bytes
    if len(items):
        yield items[first:]


def write_shard(task: ShardTask) -> dict:
    """Write one shard and its receipt, which is returned: path, sizes, digest, counts, problems and
    the positions of the items that are lost.

    The file is named by its content, so writing it again changes nothing. With `strict` the first problem that
    drops something is a JobError. A shard whose images are all bad has `path` None.
    """
    receipt = {"split": task.split, "number": task.number, "path": None, "num_rows": 0, "num_bytes": 0,
               "sha256": "", "objects_per_class": [0] * task.num_classes, "problems": [], "image_bytes": 0,
               "num_items": len(task.items), "lost": []}
    with storage.staged(None if storage.is_remote(task.dataset) else task.receipts) as (file, path):
        sink = _HashingFile(file)
        _write_rows(task, sink, receipt)
        file.flush()
        if receipt["num_rows"]:
            sha256 = sink.sha256.hexdigest()
            receipt |= {"path": f"{task.name}-{sha256[:12]}.arrow", "num_bytes": file.tell(), "sha256": sha256}
            _publish(file, path, storage.join(task.dataset, receipt["path"]))
    storage.write_bytes(storage.join(task.receipts, f"{task.split}-{task.number:05d}.json"),
                        json.dumps(receipt).encode())
    return receipt


class _HashingFile(io.RawIOBase):
    """Forwards writes and computes their digest, so that nothing has to be read again."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha256 = file, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: pa.Buffer | bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)


def _publish(file: BinaryIO, path: Path, uri: str) -> None:
    """Move the finished local file to `uri`: upload it to S3, or rename it on the same disk."""
    if storage.is_remote(uri):
        return storage.upload(path, uri)
    os.fsync(file.fileno())
    try:
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        os.replace(path, uri)
    except OSError:  # the split's directory may be a link to another disk
        storage.upload(path, uri)


def _write_rows(task: ShardTask, file: BinaryIO, receipt: dict) -> None:
    counts = np.zeros(task.num_classes, np.int64)
    pending: list[Row] = []
    pending_bytes = 0
    with pa.ipc.new_file(file, ARROW_SCHEMA) as writer:
        for number, (item, raw) in enumerate(_fetched(task.items)):
            row, problems = build_row(item, raw, task.class_map)
            _record_problems(task, item, changes(item, raw) + problems, receipt)
            if row is None:
                receipt["lost"].append(number)
                continue
            if pending and pending_bytes + len(row.image) > BATCH_BYTES:
                writer.write_batch(record_batch(pending))
                pending, pending_bytes = [], 0
            pending.append(row)
            pending_bytes += len(row.image)
            counts += np.bincount(row.objects.labels, minlength=task.num_classes)
            receipt["num_rows"] += 1
            receipt["image_bytes"] += len(row.image)
        if pending:
            writer.write_batch(record_batch(pending))
    receipt["objects_per_class"] = counts.tolist()


def _fetched(items: Sequence[Item]) -> Iterator[tuple[Item, Raw]]:
    """Items with their bytes, in order, read ahead in parallel to hide the latency of an object store."""
    with ThreadPoolExecutor(READERS) as pool:
        ahead: deque[Future[list[tuple[Item, Raw]]]] = deque()
        for group in plan_shards(items, READ_BYTES):
            ahead.append(pool.submit(lambda group: [(item, fetched(item)) for item in group], group))
            if len(ahead) > READERS:
                yield from ahead.popleft().result()
        for future in ahead:
            yield from future.result()


def _record_problems(task: ShardTask, item: Item, problems: list[Problem], receipt: dict) -> None:
    for problem in problems:
        record = problem_record(task.split, problem, item.file_name, item.image_id)
        if problem.reason in KEPT:
            record["dropped"] = None
        elif task.strict:
            raise strict_error(record)
        if problem.reason != LEFT_OUT:
            receipt["problems"].append(record)
        elif receipt["problems"] and receipt["problems"][0]["reason"] == LEFT_OUT:  # one line for the shard
            receipt["problems"][0]["count"] = receipt["problems"][0].get("count", 1) + problem.count
        else:
            receipt["problems"].insert(0, record)


def strict_error(record: dict) -> JobError:
    """The error that ends a strict job at its first bad row."""
    return JobError(f"{record['split']}: {record['file_name'] or 'annotations'}",
                    ": ".join(filter(None, (record["reason"], record["detail"]))),
                    "repair the source, or set `strict: false` to drop and list such rows")
