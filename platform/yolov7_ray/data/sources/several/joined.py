"""Several sources as one, or the splits of one source as one: items are joined lazily, in the order given.

Classes are joined by name: those of the first source in its order, then the new ones of each further source. A class
keeps the id of the first source that has it, or gets the next free one where another class has that id. Images of
source number k (from 0) have the ids k · 2^40 + the source's own, and file names below the source's name.
"""

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....errors import JobError
from ..item import Item, Raw, RawSource, note
from ..objects import UNUSABLE, Objects

BLOCK = 1 << 40
"""Image ids of one source; with 8,192 sources all are still exact in JSON."""
ALIKE = "class names that differ in case or spaces alone, kept apart (`classes` merges them)"
POOLED = "image of a split that was pooled with others"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartItem(Item):
    """An image of one of the sources."""

    item: Item
    label_of: np.ndarray | None

    def fetch(self) -> Raw:
        """Fetch the image; its labels are those of all sources together."""
        raw = self.item.fetch()
        labels = self._joined(raw.objects.labels)
        return raw if labels is raw.objects.labels else replace(raw, objects=replace(raw.objects, labels=labels))

    def labels(self) -> np.ndarray | None:
        """Those of the image, renumbered."""
        labels = self.item.labels()
        return None if labels is None else self._joined(labels)

    @property
    def is_file(self) -> bool:
        """As of the image itself."""
        return self.item.is_file

    def known(self) -> tuple[Objects, tuple[int, int] | None, bool] | None:
        """What is known of the image, with its labels renumbered."""
        found = self.item.known()
        return found and (replace(found[0], labels=self._joined(found[0].labels)), *found[1:])

    def _joined(self, labels: np.ndarray) -> np.ndarray:
        return labels if self.label_of is None else self.label_of[labels]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images of one source, and what they are called among the others."""

    items: Sequence[Item]
    image_ids: np.ndarray
    prefix: str = ""
    label_of: np.ndarray | None = None
    """Label among all sources for each of the source's, and `UNUSABLE` at the end; None: the same."""

    def item(self, index: int) -> PartItem:
        """The image at a position."""
        item = self.items[index]
        return PartItem(image_id=int(self.image_ids[index]), file_name=self.prefix + item.file_name,
                        num_bytes=item.num_bytes, mark=item.mark, item=item, label_of=self.label_of)

    def take(self, chosen: np.ndarray) -> "Part":
        """The images at these positions."""
        return replace(self, items=taken(self.items, chosen), image_ids=self.image_ids[chosen])


class JoinedItems(Sequence[PartItem]):
    """The images of all parts, one part after the other; items are made on access."""

    def __init__(self, parts: Sequence[Part]):
        self.parts = [part for part in parts if len(part.items)]
        self.ends = list(itertools.accumulate((len(part.items) for part in self.parts), initial=0))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int | slice) -> "PartItem | JoinedItems":
        if isinstance(index, slice):
            first, last, _ = index.indices(len(self))
            bounds = [(max(first - start, 0), max(last - start, 0)) for start in self.ends[:-1]]
            return JoinedItems([replace(part, items=part.items[low:high], image_ids=part.image_ids[low:high])
                                for part, (low, high) in zip(self.parts, bounds, strict=True)])
        index = range(len(self))[index]
        number = bisect_right(self.ends, index) - 1
        return self.parts[number].item(index - self.ends[number])

    def take(self, chosen: np.ndarray) -> "JoinedItems":
        """The images at the positions `chosen`, which ascend."""
        cuts = np.searchsorted(chosen, self.ends)
        return JoinedItems([part.take(chosen[low:high] - start) for part, low, high, start
                            in zip(self.parts, cuts[:-1], cuts[1:], self.ends[:-1], strict=True)])


def taken(items: Sequence[Item], chosen: np.ndarray) -> Sequence[Item]:
    """The items at the positions `chosen`, which ascend."""
    return items.take(chosen) if hasattr(items, "take") else [items[index] for index in chosen.tolist()]


def joined(sources: dict[str, RawSource]) -> RawSource:
    """All sources as one, by name; JobError if none has a class."""
    classes = tuple(dict.fromkeys(name for source in sources.values() for name in source.classes))
    if not classes:
        raise JobError("sources", "none of them has a class", "add one with annotations")
    label = {name: number for number, name in enumerate(classes)}
    class_ids = _class_ids(sources.values())
    parts: dict[str, list[Part]] = {}
    problems: dict[str, list[dict]] = {}
    originals: list[dict] = []
    for number, (name, source) in enumerate(sources.items()):
        label_of = np.array([*(label[own] for own in source.classes), UNUSABLE], np.int32)
        ids, records = _image_ids(number, name, source)
        for split, items in source.splits.items():
            parts.setdefault(split, []).append(Part(items, ids[split], f"{name}/", label_of))
        for split, found in source.problems.items():
            problems.setdefault(split, []).extend(_named(name, record) for record in found)
        originals += records + [
            {"source": name, "class_id": class_ids[own], "source_id": original} for own, original
            in zip(source.classes, _source_class_ids(source), strict=True) if original != class_ids[own]]
    for alike in _alike(classes):
        problems.setdefault(next(iter(parts)), []).append(note("", ALIKE, len(alike), ", ".join(alike)))
    inputs = [*(f"{name}: {list(source.classes)}" for name, source in sources.items()),
              *itertools.chain(*(source.inputs for source in sources.values()))]
    origin = {"format": "several", "uri": None,
              "sources": [{"name": name, **source.origin} for name, source in sources.items()]}
    return RawSource(classes, tuple(class_ids.values()), {split: JoinedItems(of) for split, of in parts.items()},
                     problems, tuple(inputs), tuple(originals), origin)


def pooled(source: RawSource) -> RawSource:
    """The source with all its splits as one, which is noted; ids and file names that repeat tell their split then."""
    ids = {split: _own_ids(items) for split, items in source.splits.items()}
    every = np.concatenate(list(ids.values()))
    names = {item.file_name for items in source.splits.values() for item in items}
    originals = source.original_ids
    if len(np.unique(every)) < len(every):
        ids, originals = {}, [record for record in originals if "image_id" not in record]
        for number, (split, items) in enumerate(source.splits.items()):
            own, records = _image_ids(number, split, replace(source, splits={split: items}))
            ids[split] = own[split]
            originals += records
    prefix = "{}/" if len(names) < len(every) else ""
    parts = [Part(items, ids[split], prefix.format(split)) for split, items in source.splits.items()]
    notes = {split: [*source.problems.get(split, ()), note(split, POOLED, len(items), items[0].file_name)]
             for split, items in source.splits.items() if len(items)}
    return replace(source, splits={"all": JoinedItems(parts)}, problems=source.problems | notes,
                   original_ids=tuple(originals))


def _class_ids(sources) -> dict[str, int]:
    """Id of each class, in the order of the classes."""
    wanted: dict[str, int] = {}
    for source in sources:
        for name, number in zip(source.classes, source.class_ids, strict=True):
            wanted.setdefault(name, number)
    free = itertools.count(max(wanted.values()) + 1)
    used: set[int] = set()
    for name, number in wanted.items():
        wanted[name] = next(free) if number in used else number
        used.add(number)
    return wanted


def _source_class_ids(source: RawSource) -> list[Any]:
    """The ids of a source's classes as they are in its files."""
    texts = {record["class_id"]: record["source_id"] for record in source.original_ids if "class_id" in record}
    return [texts.get(number, number) for number in source.class_ids]


def _own_ids(items: Sequence[Item]) -> np.ndarray:
    return np.fromiter((item.image_id for item in items), np.int64, len(items))


def _image_ids(number: int, name: str, source: RawSource) -> tuple[dict[str, np.ndarray], list[dict]]:
    """Ids of each split's images among all sources, and records of how the source's own are found from them."""
    texts = {(record["split"], record["image_id"]): record["source_id"]
             for record in source.original_ids if "image_id" in record}
    ids, records = {}, [{"source": name, "image_ids_from": number * BLOCK, "file_names": f"{name}/"}]
    for split, items in source.splits.items():
        own = _own_ids(items)
        fits = not len(own) or 0 <= own.min() and own.max() < BLOCK
        ids[split] = number * BLOCK + (own if fits else np.arange(len(own)))
        if not fits or texts:  # ids beyond 2^40: numbered by position, every one is recorded
            records += [{"source": name, "split": split, "image_id": new, "source_id": texts.get((split, old), old)}
                        for new, old in zip(ids[split].tolist(), own.tolist(), strict=True)
                        if not fits or (split, old) in texts]
    return ids, records


def _named(name: str, record: dict) -> dict:
    """A record of one source among those of others."""
    if record["file_name"]:
        return record | {"file_name": f"{name}/{record['file_name']}"}
    detail = record["detail"]
    return record | {"detail": f"e.g. {name}: {detail[5:]}" if detail.startswith("e.g. ") else f"{name}: {detail}"}


def _alike(classes: Sequence[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault("".join(name.lower().split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
