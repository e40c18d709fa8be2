"""A dataset examined: all of it with Ray Data, task by task.

Every task of Ray Data examines one shard and answers counts, examples and what its images are recognised by;
image bytes never pass through the driver. What only the whole shows, as copies and classes, is found here.
"""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from yolov7.architectures.family import Architecture

from ... import storage
from ...errors import JobError
from ...jobs.progress_line import ProgressLine
from ..manifest import Manifest, load_manifest
from .finding import Findings
from .near_duplicates import find_copies
from .object_checks import Census, Yardstick
from .shard_examination import ShardReport, ShardTask, compare_files, examine_shard
from .statistics import compare_counts, examine_anchors, examine_manifest


@dataclass(slots=True)
class Examination:
    """What was found in a dataset, and what was looked at for it."""

    uri: str
    manifest: Manifest
    architecture: str
    image_size_px: int
    findings: Findings = field(default_factory=Findings)
    counted: dict[str, Census] = field(default_factory=dict)
    """Of the splits that were examined."""
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """CPU time of the tasks."""
    looked_at: str = ""

    @property
    def num_images(self) -> int:
        """Images that were examined."""
        return sum(census.num_images for census in self.counted.values())

    def to_json(self) -> dict:
        """The report for programs."""
        return {"dataset": self.uri, "fingerprint": self.manifest.fingerprint, "architecture": self.architecture,
                "image_size_px": self.image_size_px, "looked_at": self.looked_at,
                "seconds": round(self.elapsed_s, 3), "cpu_seconds": round(self.cpu_s, 3),
                "splits": {name: {"images": census.num_images, "objects": census.num_objects,
                                  "objects_per_class": dict(zip(self.manifest.classes, census.objects_per_class))}
                           for name, census in self.counted.items()},
                "findings": self.findings.to_json()}


def yardstick(manifest: Manifest, architecture: Architecture, image_size_px: int) -> Yardstick:
    """What this detector, trained at this size, makes of the objects."""
    anchors_px = tuple(anchor for level in architecture.anchors_px for anchor in level)
    return Yardstick(len(manifest.classes), image_size_px, anchors_px)


def plan_tasks(uri: str, manifest: Manifest, measure: Yardstick) -> list[ShardTask]:
    """One task per shard, in the order of the dataset."""
    tasks = []
    for name, split in manifest.splits.items():
        first = 0
        for number, shard in enumerate(split.shards):
            tasks.append(ShardTask(uri, name, number, first, shard, measure))
            first += shard.num_rows
    return tasks


def examine_totals(examination: Examination) -> None:
    """What the sums over shards tell: counts of the splits that were seen whole, and the anchors."""
    manifest, counted = examination.manifest, examination.counted
    whole = {name: census for name, census in counted.items() if census.num_images == manifest.splits[name].num_rows}
    compare_counts(manifest, whole, examination.findings)
    examine_anchors(counted.items(), examination.findings)


# --- all of it ------------------------------------------------------------------------------------------


def examine(uri: str, architecture: Architecture, image_size_px: int) -> Examination:
    """Examine every byte of the dataset, on the Ray that is up. JobError where there is no dataset."""
    uri, begun_s = storage.absolute(uri), time.monotonic()
    examination = Examination(uri, load_manifest(uri), architecture.name, image_size_px)
    manifest, findings = examination.manifest, examination.findings
    examine_manifest(manifest, findings)
    tasks = plan_tasks(uri, manifest, yardstick(manifest, architecture, image_size_px))
    sound = compare_files(uri, tasks, findings)
    reports = _examined(sound)
    for report, task in zip(reports, sound, strict=True):
        findings.merge(report.findings)
        examination.counted.setdefault(task.split, Census()).add(report.census)
        examination.cpu_s += report.cpu_s
    examine_totals(examination)
    find_copies([image for report in reports for image in report.images], findings)
    examination.elapsed_s = time.monotonic() - begun_s
    examination.looked_at = f"every byte of {examination.num_images:,} images"
    return examination


def _examined(tasks: list[ShardTask]) -> list[ShardReport]:
    """Reports in the order of the tasks."""
    progress = ProgressLine("doctor", sum(task.shard.num_rows for task in tasks), "images")
    reports: dict[int, ShardReport] = {}
    try:
        for number, report in _run(tasks):
            reports[number] = report
            progress.advance(tasks[number].shard.num_rows)
    finally:
        progress.close()
    return [reports[number] for number in range(len(tasks))]


def _run(tasks: list[ShardTask]) -> Iterator[tuple[int, ShardReport]]:
    """Examine shards in parallel, one Ray Data task each; number and report as they come."""
    if not tasks:
        return
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False  # ours is one line
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    references = [ray.put(task) for task in tasks]
    rows = ray.data.range(len(tasks), override_num_blocks=len(tasks)).map(_examine_row, fn_args=(references,))
    for row in rows.iter_rows():
        outcome = json.loads(row["outcome"])
        if "mistake" in outcome:
            raise JobError(*outcome["mistake"])
        yield row["id"], ShardReport.from_json(outcome)


def _examine_row(row: dict, references: list) -> dict:
    """What Ray Data maps; a JobError comes back as a value, so that it reaches the user as it is."""
    import cv2
    import ray

    cv2.setNumThreads(0)  # the tasks are as many as the cores
    try:
        outcome = examine_shard(ray.get(references[row["id"]])).to_json()
    except JobError as error:
        outcome = {"mistake": error.args}
    return {"id": row["id"], "outcome": json.dumps(outcome)}
