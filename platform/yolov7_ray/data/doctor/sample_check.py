"""Sample check of a dataset for --dry-run, in this process: manifest, labels, some headers, a few images."""

import time
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from yolov7.architectures.language import Architecture

from ... import storage
from ..manifest import load_manifest
from ..reading.mapped_shard import MappedShard
from .examination import Examination, detector_shape, examine_totals, plan_tasks
from .finding import Case, Findings
from .image_checks import examine_image
from .object_checks import Statistics, examine_objects
from .shard_examination import ShardTask, compare_files, open_shard
from .statistics import examine_manifest

BUDGET_S = 8.0
"""Time budget of a sample check, half of it for labels."""

NUM_DECODED = 64
"""Images that a sample check decodes."""


def sample_check(uri: str, splits: Iterable[str], architecture: Architecture, image_size_px: int,
                 budget_s: float = BUDGET_S) -> Examination:
    """Check some splits for a few seconds, without Ray: the manifest, file sizes, labels and headers.

    On a local disk, labels are read from mapped columns, then as many headers as time allows, in random order, and
    a few images are decoded. Shards in S3 are not fetched.
    """
    uri, started_s = storage.absolute(uri), time.monotonic()
    examination = Examination(uri, load_manifest(uri), architecture.name, image_size_px)
    manifest, findings = examination.manifest, examination.findings
    examine_manifest(manifest, findings)
    tasks = [task for task in plan_tasks(uri, manifest, detector_shape(manifest, architecture, image_size_px))
             if task.split in set(splits)]
    intact = compare_files(uri, tasks, findings)
    num_headers = num_decoded = 0
    if not storage.is_remote(uri):
        opened = _check_labels(intact, examination, started_s + budget_s / 2)
        num_headers, num_decoded = _check_images(opened, findings, started_s + budget_s)
    examine_totals(examination)
    examination.elapsed_s = time.monotonic() - started_s
    num_rows = sum(task.shard.num_rows for task in tasks)
    examination.looked_at = (
        f"the manifest and the files' sizes alone, since the dataset's {num_rows:,} images lie in S3"
        if storage.is_remote(uri) else
        f"labels of {examination.num_images:,}, headers of {num_headers:,} and pixels of {num_decoded:,} of "
        f"{num_rows:,} images; no checksums, no search for copies")
    return examination


def _check_labels(tasks: list[ShardTask], examination: Examination,
                  until_s: float) -> list[tuple[ShardTask, MappedShard]]:
    """Examine objects shard by shard until the deadline; returns the shards that could be opened."""
    opened = []
    for task in tasks:
        if time.monotonic() > until_s:
            break
        try:
            mapped, first = open_shard(task.dataset, task.shard), task.first
            for batch in mapped.batches:
                statistics = examine_objects(batch, task.split, first, task.detector_shape, examination.findings)
                examination.counted.setdefault(task.split, Statistics()).add(statistics)
                first += batch.num_rows
            opened.append((task, mapped))
        except pa.ArrowException as error:
            examination.findings.add("unreadable shard", Case(task.split, detail=f"{task.shard.path}: {error}"[:200]))
    return opened


def _check_images(opened: list[tuple[ShardTask, MappedShard]], findings: Findings,
                  until_s: float) -> tuple[int, int]:
    """Examine headers in random order until the deadline, decode the first few; returns the number of each."""
    places = [(number, row) for number, (_, mapped) in enumerate(opened) for row in range(len(mapped.sizes_hw))]
    num_headers = num_decoded = 0
    for position in np.random.default_rng(0).permutation(len(places)).tolist():
        if time.monotonic() > until_s:
            break
        number, row = places[position]
        task, mapped = opened[number]
        data, size_hw = mapped.image(row), tuple(mapped.sizes_hw[row].tolist())
        pixels, problems = examine_image(data, size_hw, pixels_too=num_decoded < NUM_DECODED)
        num_decoded += pixels is not None
        num_headers += 1
        for kind, detail in problems:
            file_name = mapped.values(row)["file_name"]
            findings.add(kind, Case(task.split, task.first + row, file_name, detail))
    return num_headers, num_decoded
