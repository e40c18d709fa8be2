"""Examination of a whole dataset with Ray Data.

Each Ray Data task examines one shard and returns counts, examples and the identities of its images; image bytes
never pass through the driver. Checks that need the whole dataset, such as copies and classes, run here.
"""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from yolov7.architectures.family import Architecture

from ... import storage
from ...errors import JobError
from ...jobs.progress_line import ProgressLine
from ..ingest.losses import recorded
from ..manifest import Manifest, dataset_root, load_manifest
from .finding import Findings
from .near_duplicates import find_copies
from .object_checks import DetectorShape, Statistics
from .page.portrait import NUM_COMMON, Portrait
from .shard_examination import ShardReport, ShardTask, compare_files, examine_shard
from .statistics import compare_counts, examine_anchors, examine_manifest


@dataclass(slots=True)
class Examination:
    """Findings of a dataset, and how much of it was examined."""

    uri: str
    manifest: Manifest
    architecture: str
    image_size_px: int
    findings: Findings = field(default_factory=Findings)
    counted: dict[str, Statistics] = field(default_factory=dict)
    """Statistics of each examined split."""
    portrait: Portrait = field(default_factory=Portrait)
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """CPU time of the tasks."""
    looked_at: str = ""

    @property
    def num_images(self) -> int:
        """Images that were examined."""
        return sum(statistics.num_images for statistics in self.counted.values())

    def to_json(self) -> dict:
        """The report for programs."""
        return {"dataset": self.uri, "fingerprint": self.manifest.fingerprint, "architecture": self.architecture,
                "image_size_px": self.image_size_px, "looked_at": self.looked_at,
                "seconds": round(self.elapsed_s, 3), "cpu_seconds": round(self.cpu_s, 3),
                "splits": {name: {"images": statistics.num_images, "objects": statistics.num_objects,
                                  "objects_per_class": dict(zip(self.manifest.classes, statistics.objects_per_class))}
                           for name, statistics in self.counted.items()},
                "losses": [asdict(loss) for loss in recorded(self.manifest)], "portrait": self.portrait.to_json(),
                "findings": self.findings.to_json()}


def detector_shape(manifest: Manifest, architecture: Architecture, image_size_px: int) -> DetectorShape:
    """The detector's properties, trained at this image size, that objects are checked against."""
    anchors_px = tuple(anchor for level in architecture.anchors_px for anchor in level)
    return DetectorShape(len(manifest.classes), image_size_px, anchors_px)


def common_classes(manifest: Manifest) -> tuple[int, ...]:
    """Labels of the most frequent classes of all splits, most frequent first."""
    counts = [sum(split.objects_per_class[label] for split in manifest.splits.values()
                  if label < len(split.objects_per_class)) for label in range(len(manifest.classes))]
    return tuple(sorted((label for label, count in enumerate(counts) if count),
                        key=lambda label: -counts[label])[:NUM_COMMON])


def plan_tasks(uri: str, manifest: Manifest, shape: DetectorShape) -> list[ShardTask]:
    """One task per shard, in the order of the dataset."""
    tasks, common, root = [], common_classes(manifest), dataset_root(uri)
    for name, split in manifest.splits.items():
        first = 0
        for number, shard in enumerate(split.shards):
            tasks.append(ShardTask(root, name, number, first, shard, shape, common))
            first += shard.num_rows
    return tasks


def examine_totals(examination: Examination) -> None:
    """Check the totals over shards: counts of completely examined splits, and anchors."""
    manifest, counted = examination.manifest, examination.counted
    complete = {name: statistics for name, statistics in counted.items()
                if statistics.num_images == manifest.splits[name].num_rows}
    compare_counts(manifest, complete, examination.findings)
    examine_anchors(counted.items(), examination.findings)


# --- the full examination -------------------------------------------------------------------------------


def examine(uri: str, architecture: Architecture, image_size_px: int) -> Examination:
    """Examine every byte of the dataset on the running Ray. JobError if there is no dataset."""
    uri, started_s = storage.absolute(uri), time.monotonic()
    examination = Examination(uri, load_manifest(uri), architecture.name, image_size_px)
    manifest, findings = examination.manifest, examination.findings
    examine_manifest(manifest, findings)
    tasks = plan_tasks(uri, manifest, detector_shape(manifest, architecture, image_size_px))
    intact = compare_files(uri, tasks, findings)
    reports = _examined(intact)
    for report, task in zip(reports, intact, strict=True):
        findings.merge(report.findings)
        examination.counted.setdefault(task.split, Statistics()).add(report.statistics)
        examination.portrait.add(report.portrait)
        examination.cpu_s += report.cpu_s
    examine_totals(examination)
    find_copies([image for report in reports for image in report.images], findings)
    examination.elapsed_s = time.monotonic() - started_s
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
    """Examine shards in parallel, one Ray Data task each; yields number and report as they finish."""
    if not tasks:
        return
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False  # ProgressLine replaces them
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    references = [ray.put(task) for task in tasks]
    rows = ray.data.range(len(tasks), override_num_blocks=len(tasks)).map(_examine_row, fn_args=(references,))
    for row in rows.iter_rows():
        outcome = json.loads(row["outcome"])
        if "error" in outcome:
            raise JobError(*outcome["error"])
        yield row["id"], ShardReport.from_json(outcome)


def _examine_row(row: dict, references: list) -> dict:
    """Row function for Ray Data; a JobError is returned as a value, so that the user sees it unchanged."""
    import cv2
    import ray

    cv2.setNumThreads(0)  # there is one task per core
    try:
        outcome = examine_shard(ray.get(references[row["id"]])).to_json()
    except JobError as error:
        outcome = {"error": error.args}
    return {"id": row["id"], "outcome": json.dumps(outcome)}
