"""The Arrow dataset: its columns, and the manifest that describes its shards.

``<uri>/dataset.json`` is the manifest, written last: without it there is no dataset. The shards
``<uri>/<split>/NNNNN-<digest>.arrow`` are uncompressed Arrow IPC files, so that a mapped file is read without
a copy; they are immutable: new content has a new name. When a dataset grows, the manifest before is kept as
``<uri>/manifests/<fingerprint>.json``; ``<uri>@<beginning of a fingerprint>`` is the dataset with that content.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from .. import storage
from ..errors import Corrupt, JobError, NotFound
from ..jobs.kind import Upcoming

VERSION = 1
MANIFEST = "dataset.json"
DROPPED = "dropped.jsonl"
KEPT_MANIFESTS = "manifests"
"""Directory of the manifests of earlier contents, each named by its fingerprint."""
_PINNED = re.compile(r"(.+)@([0-9a-f]{8,64})")

ARROW_SCHEMA = pa.schema([
    pa.field("image_id", pa.int64(), nullable=False),
    pa.field("file_name", pa.string(), nullable=False),
    pa.field("image", pa.large_binary(), nullable=False),  # encoded bytes exactly as they came
    pa.field("height_px", pa.int32(), nullable=False),  # as displayed, EXIF orientation applied
    pa.field("width_px", pa.int32(), nullable=False),
    pa.field("boxes_xyxy", pa.list_(pa.list_(pa.float32(), 4)), nullable=False),  # pixels of the displayed image
    pa.field("labels", pa.list_(pa.int32()), nullable=False),  # index into the manifest's classes
    pa.field("iscrowd", pa.list_(pa.bool_()), nullable=False),
    pa.field("area", pa.list_(pa.float32()), nullable=False),  # square pixels, as annotated
    pa.field("polygons", pa.list_(pa.list_(pa.list_(pa.float32()))), nullable=False),  # object, ring: x, y, x, y…
])
"""One row is one image; the four object columns and `polygons` have one entry per object."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One Arrow file."""

    path: str
    """Relative to the dataset's URI."""
    num_rows: int
    """Without those removed."""
    num_bytes: int
    sha256: str
    removed: tuple[int, ...] = ()
    """Rows of the file, ascending, that belong to the dataset no longer."""


@dataclass(frozen=True, slots=True)
class Split:
    """One split; its rows are those of its shards in order."""

    shards: tuple[Shard, ...]
    num_rows: int
    num_objects: int
    objects_per_class: tuple[int, ...]


@dataclass(frozen=True)
class Manifest:
    """Content of a dataset; `fingerprint` identifies exactly this content, whatever its source."""

    classes: tuple[str, ...]
    source_ids: tuple[int, ...]
    """The classes' ids in the source, e.g. COCO's category ids."""
    splits: dict[str, Split]
    source: dict
    """Format, URI and digest of the input; not part of the fingerprint."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> how many images or objects were dropped or clipped for it."""
    losses: tuple[dict, ...] = ()
    """The same, worst first, with what was `dropped` and an `example`; older manifests have none."""
    version: int = VERSION
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", self._content_digest())

    def _content_digest(self) -> str:
        content = {"version": self.version, "classes": self.classes, "source_ids": self.source_ids,
                   "splits": {name: _plain(split) for name, split in self.splits.items()}}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def split(self, name: str) -> Split:
        """The split `name`; JobError with the existing names if there is none."""
        if name not in self.splits:
            raise JobError("split", f"'{name}' is unknown", f"the dataset has {', '.join(self.splits)}")
        return self.splits[name]

    def to_json(self) -> dict:
        """Plain values for a JSON file."""
        return asdict(self) | {"splits": {name: _plain(split) for name, split in self.splits.items()}}

    def summary(self) -> str:
        """Counts in words."""
        splits = (f"{name} {split.num_rows:,} images, {split.num_objects:,} objects"
                  for name, split in self.splits.items())
        return f"{'; '.join(splits)}; {len(self.classes)} classes"

    def shards(self) -> Iterator[Shard]:
        """Those of all splits."""
        return (shard for split in self.splits.values() for shard in split.shards)

    @classmethod
    def from_json(cls, values: dict) -> "Manifest":
        """Inverse of `to_json`; ValueError, KeyError or TypeError if `values` are no manifest."""
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']!r} is unknown; this code reads version {VERSION}")
        splits = {name: Split(tuple(_shard(**shard) for shard in split["shards"]), split["num_rows"],
                              split["num_objects"], tuple(split["objects_per_class"]))
                  for name, split in values["splits"].items()}
        manifest = cls(tuple(values["classes"]), tuple(values["source_ids"]), splits, values["source"],
                       values["dropped"], tuple(values.get("losses", ())), values["version"], values["fingerprint"])
        if manifest.fingerprint != manifest._content_digest():
            raise ValueError("its fingerprint does not fit its content")
        return manifest


def _plain(split: Split) -> dict:
    """Plain values; `removed` is left out where it is empty, so that fingerprints are those of before growth was."""
    values = asdict(split)
    for shard in values["shards"]:
        if not shard["removed"]:
            del shard["removed"]
    return values


def _shard(removed: list[int] | tuple[int, ...] = (), **values) -> Shard:
    return Shard(**values, removed=tuple(removed))


def dataset_root(uri: str) -> str:
    """The directory of a dataset, also of one at ``URI@FINGERPRINT``."""
    return _located(uri)[0]


def _located(uri: str) -> tuple[str, str]:
    """Directory and beginning of the fingerprint, empty for the current content."""
    pinned = _PINNED.fullmatch(uri)
    if pinned is None or storage.exists(storage.join(uri, MANIFEST)):
        return uri, ""
    return pinned[1], pinned[2]


def load_manifest(uri: str) -> Manifest:
    """The manifest of the dataset at `uri`, or of the earlier content ``URI@FINGERPRINT``.

    JobError if it is missing or unusable.
    """
    root, prefix = _located(uri)
    manifest = _read(root, storage.join(root, MANIFEST))
    if manifest.fingerprint.startswith(prefix):
        return manifest
    kept = kept_fingerprints(root)
    found = [fingerprint for fingerprint in kept if fingerprint.startswith(prefix)]
    if len(found) != 1:
        known = ", ".join(fingerprint[:12] for fingerprint in [*kept, manifest.fingerprint])
        raise NotFound(uri, f"{len(found) or 'no'} kept fingerprints begin with {prefix}", f"the dataset has {known}")
    return _read(root, storage.join(root, KEPT_MANIFESTS, f"{found[0]}.json"))


def pinned(uri: str, fingerprint: str) -> str:
    """The dataset with the content `fingerprint`: `uri` itself while it has that.

    NotFound if that content is neither there nor kept.
    """
    if load_manifest(uri).fingerprint == fingerprint:
        return uri
    earlier = f"{dataset_root(uri)}@{fingerprint}"
    load_manifest(earlier)
    return earlier


def kept_fingerprints(root: str) -> list[str]:
    """Fingerprints of the earlier contents that are kept, sorted."""
    return [info.path.removesuffix(".json") for info in storage.list_files(storage.join(root, KEPT_MANIFESTS))
            if info.path.endswith(".json")]


def _read(uri: str, path: str) -> Manifest:
    try:
        return Manifest.from_json(storage.read_json(path))
    except NotFound:
        raise NotFound(uri, "there is no dataset here", "run an ingest job with this `dataset` first") from None
    except (Corrupt, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = error.problem if isinstance(error, JobError) else f"is corrupt: {error}"
        raise Corrupt(path, problem, "run the ingest job again with `overwrite: true`") from None


def require_dataset(uri: str, upcoming: Upcoming) -> None:
    """JobError if there is no dataset and no earlier step makes it."""
    if "${" not in uri and not upcoming.makes(uri):
        load_manifest(uri)
