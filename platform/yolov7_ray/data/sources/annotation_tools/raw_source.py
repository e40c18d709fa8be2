"""Entries -> a source: the image of each is found, its split told, and class names become labels.

Nothing is dropped without a record. This is the same for the formats of all annotation tools.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from .... import storage
from ....errors import JobError
from ....storage.disk import FileInfo
from ...files.listing import Listing
from ...files.split_names import in_order
from ...files.suffixes import OTHER_PICTURES
from ..item import FileItem, Item, RawSource, left_aside, note, problem_record, unreadable
from ..objects import Annotation, Objects, Problem
from .entries import EVERY_CLASS, Entry, Named
from .pictures import Pictures
from .splits import split_of

EMBEDDED = "image taken from the annotation file, its own file is missing"
MAX_NAME = 200
"""Characters of a name that are shown: some exports have the image itself in place of one."""
UNMENTIONED = "image file that no annotation mentions, left aside"


def source_of(spec, listing: Listing, entries: Iterable[Entry], classes: Sequence[str] = (),
              unlabelled: str = "", read: Iterable[str] = ()) -> RawSource:
    """The source that the entries make; its classes are `spec.classes`, else `classes` and all others, sorted.

    Images that no entry mentions are counted; with `unlabelled` those among the others are dropped for that reason. So
    are all other files but those of the entries and of `read`.
    """
    pictures = Pictures(listing)
    splits = {split: _Split(split) for split in spec.splits or ()}
    aside: list[tuple[str | None, str, str]] = []
    entries = list(entries)
    located = pictures.located(entries)
    for position, entry in enumerate(entries):
        image, bends = located.get(position, (None, ()))
        name = split_of([entry.path, *([image.path] if image else [])], entry.subset, spec.splits)
        if entry.aside:
            aside.append((name, entry.aside, image.path if image else entry.path))
        elif name is not None:
            splits.setdefault(name, _Split(name)).add(entry, image, bends)
    seen = {image.path for image, _ in located.values()}
    labelled = {path.rpartition("/")[0] for path in seen}
    for path in sorted(pictures.files.keys() - seen):
        name = split_of([path], "", spec.splits)
        if unlabelled and name in splits and path.rpartition("/")[0] in labelled:
            splits[name].drop(Problem(unlabelled, f"none for {path}", is_image=True), path)
        else:
            aside.append((name, UNMENTIONED, path))
    if not splits:
        splits["train"] = _Split("train")
    for name, reason, example in aside:
        if name in splits or not spec.splits:
            splits.get(name, next(iter(splits.values()))).note(reason, example)
    splits = {name: splits[name] for name in in_order(splits)}
    others = listing.files.keys() - pictures.files.keys() - {entry.path for entry in entries} - set(read)
    names = list(spec.classes or dict.fromkeys([*classes, *sorted(_class_names(splits.values()))]))
    if not names:
        raise JobError(spec.uri, f"no object is left: {_reason(splits.values())}", "mend the source")
    problems = {name: split.records() for name, split in splits.items()}
    problems[next(iter(problems))] += left_aside(others)
    return RawSource(tuple(names), tuple(range(len(names))),
                     {name: split.items(listing.uri, names) for name, split in splits.items()}, problems)


@dataclass(slots=True)
class _Split:
    """Entries of a split with their images, and records of all that is not among them."""

    name: str
    entries: dict[str, Entry] = field(default_factory=dict)
    """Path of the image -> its entry."""
    images: list[FileInfo] = field(default_factory=list)
    problems: list[dict] = field(default_factory=list)
    notes: dict[str, list] = field(default_factory=dict)
    """Reason -> count and example."""

    def note(self, reason: str, example: str) -> None:
        """Count something of which nothing is lost."""
        self.notes.setdefault(reason, [0, example])[0] += 1

    def drop(self, problem: Problem, path: str) -> None:
        """Record an image that is lost."""
        self.problems.append(problem_record(self.name, problem, path))

    def add(self, entry: Entry, image: FileInfo | None, bends: Sequence[tuple[str, str]]) -> None:
        """Keep the entry, or a record of why it cannot be used."""
        if image is None and entry.embedded:
            image = FileInfo(_embedded_path(entry), 0, "")
            self.note(EMBEDDED, entry.path)
        first = self.entries.get(image.path) if image else None
        if first and first.mark == entry.mark and not entry.problem:
            return self.note("image listed twice", image.path)
        if problem := self._problem(entry, image):
            return self.drop(problem, image.path if image else entry.path)
        self.entries[image.path] = entry
        self.images.append(image)
        for reason in entry.notes:
            self.note(reason, image.path)
        for reason, example in bends:
            self.note(reason, example)

    def _problem(self, entry: Entry, image: FileInfo | None) -> Problem | None:
        if entry.problem:
            return entry.problem
        lost = len(entry.objects)
        if image is None:
            name = next(iter(entry.names), "")[:MAX_NAME]
            return Problem("missing image file", f"no image {name} of {entry.path}", is_image=True, num_objects=lost)
        if image.path.lower().endswith(OTHER_PICTURES):
            return unreadable(image.path, lost)
        if image.path in self.entries:
            first = self.entries[image.path].path
            return Problem("image annotated twice", f"{image.path}: by {first}, which counts, and by {entry.path}",
                           is_image=True, num_objects=lost)
        return None

    def items(self, uri: str, classes: list[str]) -> list[Item]:
        """The items; their ids are the tool's where it has a different one for each image."""
        ids = [entry.image_id for entry in self.entries.values()]
        if None in ids or len(set(ids)) < len(ids):
            ids = range(len(ids))
        return [_item(uri, image_id, entry, image, classes)
                for image_id, entry, image in zip(ids, self.entries.values(), self.images, strict=True)]

    def records(self) -> list[dict]:
        """All records of the split."""
        return self.problems + [note(self.name, reason, count, example)
                                for reason, (count, example) in sorted(self.notes.items())]


def _item(uri: str, image_id: int, entry: Entry, image: FileInfo, classes: list[str]) -> Item:
    objects = Objects.of([labelled for named in entry.objects for labelled in _labelled(named, classes)])
    common = dict(image_id=image_id, file_name=image.path, objects=objects, declared_hw=entry.declared_hw)
    if not image.num_bytes and entry.embedded:
        return entry.embedded(mark=entry.mark, **common)
    return FileItem(num_bytes=image.num_bytes, mark=image.mark + entry.mark, uri=storage.join(uri, image.path),
                    relative=entry.relative, **common)


def _labelled(named: Named | Problem, classes: list[str]) -> Iterator[Annotation | Problem]:
    if isinstance(named, Problem):
        yield named
        return
    name, annotation = named
    if name is not EVERY_CLASS and name not in classes:
        yield Problem("unknown class", f"'{name}'")
        return
    for label in range(len(classes)) if name is EVERY_CLASS else [classes.index(name)]:
        yield replace(annotation, label=label)


def _embedded_path(entry: Entry) -> str:
    """A name for an image that is no file: that of its annotation file, with its own ending."""
    suffix = re.search(r"\.\w+$", next(iter(entry.names), ""))
    return entry.path.rpartition(".")[0] + (suffix[0] if suffix else "")


def _class_names(splits: Iterable[_Split]) -> set[str]:
    return {named[0] for split in splits for entry in split.entries.values() for named in entry.objects
            if isinstance(named, tuple) and named[0] is not EVERY_CLASS}


def _reason(splits: Iterable[_Split]) -> str:
    """Why there is no object: the first loss, or what was only counted."""
    dropped, counted = [], []
    for split in splits:
        dropped += [f"{record['reason']} ({record['detail']})" for record in split.problems]
        dropped += [f"{problem.reason} ({problem.detail})" for entry in split.entries.values()
                    for problem in entry.objects if isinstance(problem, Problem)]
        counted += [f"{reason} ({example})" for reason, (_, example) in split.notes.items()]
    return next(iter(dropped + counted), "no annotation file has any")
