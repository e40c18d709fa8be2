"""Examination of one shard: fetch, verify and map it, then check every image and object."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from ... import storage
from ...errors import Corrupt, NotFound
from ..manifest import ARROW_SCHEMA, Shard, dataset_root
from ..reading.cache import NodeCache
from ..reading.mapped_shard import MappedShard
from .finding import Case, Findings
from .image_checks import examine_image, perceptual_hash
from .near_duplicates import Identity
from .object_checks import DetectorShape, Statistics, examine_objects, objects_of
from .page.portrait import Portrait


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Everything a process on any node needs to examine one shard."""

    dataset: str
    split: str
    number: int
    """Position of the shard among those of its split."""
    first: int
    """Index in the split of the shard's first row."""
    shard: Shard
    detector_shape: DetectorShape
    common: tuple[int, ...] = ()
    """Labels of the classes whose co-occurrence is counted."""


@dataclass(slots=True)
class ShardReport:
    """Result of examining one shard."""

    findings: Findings = field(default_factory=Findings)
    statistics: Statistics = field(default_factory=Statistics)
    portrait: Portrait = field(default_factory=Portrait)
    images: list[Identity] = field(default_factory=list)
    cpu_s: float = 0.0

    def to_json(self) -> dict:
        """Plain values."""
        return {"findings": self.findings.to_json(), "statistics": asdict(self.statistics),
                "portrait": self.portrait.to_json(),
                "images": [asdict(image) for image in self.images], "cpu_s": self.cpu_s}

    @classmethod
    def from_json(cls, values: dict) -> "ShardReport":
        """Inverse of `to_json`."""
        return cls(Findings.from_json(values["findings"]), Statistics(**values["statistics"]),
                   Portrait.from_json(values["portrait"]),
                   [Identity(**image) for image in values["images"]], values["cpu_s"])


def open_shard(dataset: str, shard: Shard) -> MappedShard:
    """Map the shard in place, or in the node's cache if it is in S3; its digest is not checked here.

    pa.ArrowException if it is not an Arrow file with the expected columns, or if these are inconsistent.
    """
    uri = storage.join(dataset, shard.path)
    mapped = MappedShard(NodeCache().path(dataset, shard) if storage.is_remote(uri) else uri, shard.removed)
    if not mapped.batches:
        raise pa.ArrowInvalid("there are no rows")
    for batch in mapped.batches:
        types = dict(zip(batch.schema.names, batch.schema.types))
        if other := [field.name for field in ARROW_SCHEMA if types.get(field.name) != field.type]:
            raise pa.ArrowInvalid(f"columns are missing or of another type: {', '.join(other)}")
        batch.validate(full=True)  # a wrong offset would otherwise crash the process
    return mapped


def compare_files(dataset: str, tasks: list[ShardTask], findings: Findings) -> list[ShardTask]:
    """The shards that exist with the size in the manifest; the others become findings."""
    sizes = {info.path: info.num_bytes for info in storage.list_files(dataset_root(dataset))}
    intact = []
    for task in tasks:
        size = sizes.get(task.shard.path)
        if size is None:
            findings.add("missing shard", _shard_case(task))
        elif size != task.shard.num_bytes:
            findings.add("truncated shard", Case(
                task.split, detail=f"{task.shard.path} has {size:,} bytes, not {task.shard.num_bytes:,}"))
        else:
            intact.append(task)
    return intact


def examine_shard(task: ShardTask) -> ShardReport:
    """Examine a whole shard. A shard whose digest is wrong is not opened."""
    report, started_s = ShardReport(), time.process_time()
    mapped = _verified(task, report.findings)
    if mapped is not None:
        try:
            _examine_rows(task, mapped, report)
        except pa.ArrowException as error:  # a null where none is allowed
            report.findings.add("unreadable shard", _shard_case(task, error))
    report.cpu_s = time.process_time() - started_s
    return report


def _verified(task: ShardTask, findings: Findings) -> MappedShard | None:
    path = Path(task.dataset, task.shard.path)
    try:
        if not storage.is_remote(task.dataset) and (actual := storage.digest(path)) != task.shard.sha256:
            raise Corrupt(str(path), f"its sha256 is {actual[:16]}…, not {task.shard.sha256[:16]}…")
        return open_shard(task.dataset, task.shard)
    except (NotFound, FileNotFoundError):
        findings.add("missing shard", _shard_case(task))
    except Corrupt as error:
        findings.add("wrong checksum", _shard_case(task, error.problem))
    except pa.ArrowException as error:
        findings.add("unreadable shard", _shard_case(task, error))
    return None


def _shard_case(task: ShardTask, why: object = "") -> Case:
    reason = " ".join(str(why).split())[:200]
    shard = f"{task.shard.path}, {task.shard.num_rows} images"
    return Case(task.split, detail=": ".join(filter(None, (shard, reason))))


def _examine_rows(task: ShardTask, mapped: MappedShard, report: ShardReport) -> None:
    first = task.first
    for batch in mapped.batches:
        report.statistics.add(examine_objects(batch, task.split, first, task.detector_shape, report.findings))
        report.portrait.add_batch(batch, task.split, first, objects_of(batch), task.common)
        for row in range(batch.num_rows):
            values = [batch.column(name)[row] for name in ("image_id", "file_name", "image", "height_px", "width_px")]
            report.images.append(_examine_image(task.split, first + row, *values, report.findings))
        first += batch.num_rows
    if first - task.first != task.shard.num_rows:
        report.findings.add("counts differ from the manifest", Case(
            task.split, detail=f"{task.shard.path} holds {first - task.first} images, "
                               f"the manifest says {task.shard.num_rows}"))


def _examine_image(split: str, index: int, image_id: pa.Scalar, file_name: pa.Scalar, image: pa.Scalar,
                   height_px: pa.Scalar, width_px: pa.Scalar, findings: Findings) -> Identity:
    """Add the problems of an image, decoded once at reduced size; returns its identity."""
    data, recorded_hw = image.as_buffer(), (height_px.as_py(), width_px.as_py())
    identity = (split, index, image_id.as_py(), file_name.as_py(), storage.digest(memoryview(data)))
    pixels, problems = examine_image(data, recorded_hw, pixels_too=True)
    for kind, detail in problems:
        findings.add(kind, Case(split, index, file_name.as_py(), detail))
    if pixels is None:
        return Identity(*identity)
    form, tint = perceptual_hash(pixels)
    return Identity(*identity, form, tint.hex())
