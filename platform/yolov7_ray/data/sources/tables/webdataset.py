"""WebDataset: tar shards in which an image and a .json of the same name are a sample.

The JSON holds a list of objects, or lists of boxes and of classes side by side. The driver reads the headers of the
members and the JSON: of a shard in a store it reads all, a buffer at a time. Images are read by offset later.
"""

import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .... import storage
from ....errors import JobError
from ....storage.disk import FileInfo
from ...files.listing import Listing
from ...files.suffixes import IMAGE_SUFFIXES
from ...files.text import NotText, decode
from ..item import UNDECODABLE, Raw, RawSource
from ..objects import Problem
from .boxes import NOT_ANNOTATED
from .records.json_records import Records, add, declared_hw, tells
from .records.layout import Asked
from .records.packed import PackedItem, Packing, source_of
from .splits import shards_by_split

BUFFER_BYTES = 1 << 20
"""Read at a time of a shard in a store."""
PARALLEL_SHARDS = 8
FIRST_MEMBERS = 20
"""Members of a tar that are looked at to tell its format."""
NO_JSON, ANOTHER = Problem(NOT_ANNOTATED), Problem("another kind")
"""In place of the JSON of a member that has none, or that is neither image nor JSON."""
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


class MemberItem(PackedItem):
    """An image in a tar."""

    __slots__ = ()

    def fetch(self) -> Raw:
        """Read the member."""
        uri, _, offset, length = self.siblings.place(self.index)
        return self.raw(storage.read_range(uri, offset, offset + length))


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    length: int

    @property
    def stem(self) -> str:
        return self.name[:-len(self.suffix)]

    @property
    def suffix(self) -> str:
        base = self.name.rpartition("/")[2]
        return base[base.rfind("."):] if "." in base else ""


def evidence(listing: Listing) -> list[str]:
    """Shards whose first members are an image and its JSON with boxes."""
    return [path for path in listing.probes(".tar") if _is_shard(listing.uri, listing.files[path])]


def _is_shard(uri: str, info: FileInfo) -> bool:
    where, pairs = storage.join(uri, info.path), {}
    try:
        for _, (member, content) in zip(range(FIRST_MEMBERS), _members(where, info)):
            if member.suffix.lower() in IMAGE_SUFFIXES + (".json",):
                pairs.setdefault(member.stem, {})[member.suffix.lower() == ".json"] = content
            if len(pair := pairs.get(member.stem, {})) == 2:
                return tells(_record(where, member.name, pair[True]))
    except JobError:
        pass
    return False


def read(spec) -> RawSource:
    """Read the JSON of all shards; JobError for a tar that is not whole."""
    listing = Listing(spec.uri)
    paths = [path for path in listing.files if path.lower().endswith(".tar")]
    if not paths:
        packed = next((path for path in listing.files if path.lower().endswith(_PACKED)), "")
        raise JobError("source.uri", f"no .tar is at {spec.uri}" + (f", but {packed}" if packed else ""),
                       "unpack shards to plain .tar: no part of a compressed one can be read alone" if packed
                       else "give the directory of the shards")
    shards, aside = shards_by_split(paths, spec.splits)
    records = Records(spec, Asked.by(spec))
    splits = {split: _read_split(split, [listing.files[path] for path in chosen], spec, records)
              for split, chosen in shards.items()}
    names, target = records.labels.resolved(spec.classes, (), spec.uri)
    for split, packing in splits.items():
        packing.boxes.relabel(target, list(records.labels.values))
        packing.boxes.check_unit(spec.coordinates, shards[split][0])
    return source_of(names, {split: packing.items(MemberItem) for split, packing in splits.items()}, splits.values(),
                     aside)


def _read_split(split: str, shards: list[FileInfo], spec, records: Records) -> Packing:
    packing = Packing(split, spec.coordinates == "fractions")
    with ThreadPoolExecutor(PARALLEL_SHARDS) as pool:
        for first in range(0, len(shards), PARALLEL_SHARDS):
            some = shards[first:first + PARALLEL_SHARDS]
            for info, members in zip(some, pool.map(lambda info: _samples(spec.uri, info), some)):
                packing.file(spec.uri, info)
                _add(info.path, members, packing, records)
    return packing


def _add(path: str, samples: list[tuple], packing: Packing, records: Records) -> None:
    """The samples of one shard: stem, image or None, and the JSON or its problem."""
    kept: list[_Member] = []
    sizes: list[tuple[int, int]] = []
    complete = {stem for stem, image, record in samples if image and not isinstance(record, Problem)}
    for stem, image, record in samples:
        where = f"{path} {stem}"
        if record is ANOTHER or record is NO_JSON and _first_key(stem) in complete - {stem}:
            packing.boxes.tell("member of another kind left aside", f"{path} {image.name}")
            continue
        entries = None if isinstance(record, Problem) else records.objects(record, where)
        if isinstance(record, Problem):
            problem = Problem(record.reason, record.detail or where, is_image=True)
        elif image is None:
            problem = Problem("missing image file", f"no image beside {where}.json", True, num_objects=len(entries or ()))
        else:
            problem = Problem("JSON without boxes", f"{where}.json", True) if entries is None else None
        if problem:
            packing.drop(problem, where)
            continue
        add(packing.boxes, packing.num_images + len(kept), entries, where)
        kept.append(image)
        sizes.append(declared_hw(record) or (0, 0))
    places = np.array([(image.offset, image.length) for image in kept], np.int64).reshape(-1, 2)
    packing.add([image.name for image in kept], places, places[:, 1], np.array(sizes, np.int64))


def _first_key(stem: str) -> str:
    """What WebDataset takes for the name of the sample: up to the first dot."""
    directory, slash, base = stem.rpartition("/")
    return directory + slash + base.partition(".")[0]


def _samples(uri: str, info: FileInfo) -> list[tuple]:
    """The samples of a shard, and its other members as samples that are `ANOTHER`."""
    where = storage.join(uri, info.path)
    images: dict[str, _Member] = {}
    records: dict[str, object] = {}
    others = []
    for member, content in _members(where, info):
        suffix = member.suffix.lower()
        if suffix == ".json" and member.stem not in records:
            records[member.stem] = _record(where, member.name, content)
        elif suffix in IMAGE_SUFFIXES and member.stem not in images:
            images[member.stem] = member
        else:
            others.append((member.stem, member, ANOTHER))
    return [(stem, images.get(stem), records.get(stem, NO_JSON)) for stem in images | records] + others


def _record(where: str, name: str, content: bytes):
    """The parsed JSON, or why it is none."""
    try:
        return json.loads(decode(content, name))
    except (NotText, ValueError, RecursionError) as error:
        return Problem(UNDECODABLE, f"{where} {name}: {error}")


def _members(where: str, info: FileInfo) -> Iterator[tuple[_Member, bytes]]:
    """The files in a tar, with the content of JSON; JobError if it is damaged, or ends too early."""
    try:
        with storage.in_ranges(where, info.num_bytes, BUFFER_BYTES) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for entry in tar:
                tar.members.clear()  # it keeps all, half a kilobyte each
                if entry.isfile():
                    member = _Member(entry.name.removeprefix("./"), entry.offset_data, entry.size)
                    content = b""
                    if member.suffix.lower() == ".json":
                        file.seek(member.offset)
                        content = file.read(member.length)
                    yield member, content
            file.seek(tar.offset)
            if any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"no header at byte {tar.offset:,}")
    except tarfile.TarError as error:
        raise JobError(where, f"is no whole tar: {error}", "fetch or write it again, or take it away") from None
