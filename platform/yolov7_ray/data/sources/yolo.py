"""YOLO text labels: one file per image, one line per object: class cx cy w h, or class and a polygon.

All coordinates are fractions of the image's width and height. An image without a label file has no objects; a split
in which no image has one is an error. With `kpt_shape`, a line goes on with keypoints, which are left aside.
"""

import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from ... import storage
from ...errors import JobError
from ...storage.disk import FileInfo
from ...storage.file_list import FileColumns, FileMap
from ..files.resolver import Resolver, plain_parts
from ..files.split_names import SPLITS
from ..files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ..files.text import NotText, read_text
from .item import UNDECODABLE, UNREADABLE, Item, Raw, RawSource, bends, left_aside, note, problem_record, unreadable
from .objects import Objects, Problem
from .yolo_folder import NAME_FILES, YoloFolder, label_candidates, parse_labels

PARALLEL_READS = 16
_COMPANIONS = (".yaml", ".yml", ".names", ".labels", ".data", ".md", ".cache")
"""Endings of files that belong to a YOLO folder."""
_NO_LABELS = {*NAME_FILES, "classes.txt", *(f"{word}.txt" for words in SPLITS.values() for word in words)}


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloItem(Item):
    """An image whose labels are in a separate file, read with the image."""

    uri: str
    labels_uri: str | None
    num_classes: int
    num_keypoint_values: int = 0
    is_file: ClassVar[bool] = True

    def fetch(self) -> Raw:
        """Read the image and its labels."""
        image = storage.read_bytes(self.uri)
        try:
            text = read_text(self.labels_uri) if self.labels_uri else ""
        except NotText as error:
            return Raw(image, Objects.of([]), problem=Problem(UNDECODABLE, str(error), is_image=True))
        annotations = parse_labels(text, self.num_classes, self.num_keypoint_values)
        return Raw(image, Objects.of(annotations), relative=True)

    def labels(self) -> np.ndarray:
        """Read from the label file alone; none where it cannot be read."""
        try:
            text = read_text(self.labels_uri) if self.labels_uri else ""
        except (NotText, *UNREADABLE):
            text = ""
        return Objects.of(parse_labels(text, self.num_classes, self.num_keypoint_values)).labels


@dataclass(frozen=True, slots=True, eq=False)
class YoloItems(Sequence[YoloItem]):
    """Images of a split and their label files in columns; a slice holds only its own."""

    folder: str
    beside: str | None
    """Directory of label files outside of the folder, which are named by their URIs."""
    image_ids: range | np.ndarray
    images: FileColumns
    labels: FileColumns
    """The label file of each image; without a path where it has none."""
    num_classes: int
    num_keypoint_values: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> "YoloItem | YoloItems":
        if isinstance(index, slice):
            return replace(self, image_ids=self.image_ids[index], images=self.images[index], labels=self.labels[index])
        image, label = self.images[index], self.labels[index]
        mark = f"{label.mark} {label.num_bytes}" if label.path else "None None"
        mark += f" {self.num_keypoint_values}" if self.num_keypoint_values else ""
        return YoloItem(image_id=int(self.image_ids[index]), file_name=image.path, num_bytes=image.num_bytes,
                        mark=f"{image.mark} {mark}", uri=storage.join(self.folder, image.path),
                        labels_uri=self.labels_uri(label.path), num_classes=self.num_classes,
                        num_keypoint_values=self.num_keypoint_values)

    def take(self, chosen: np.ndarray) -> "YoloItems":
        """The images at the positions `chosen`, in that order, with their ids."""
        rows = chosen.tolist()
        return replace(self, image_ids=np.asarray(self.image_ids)[chosen], images=self.images.take(rows),
                       labels=self.labels.take(rows))

    def labels_uri(self, path: str) -> str | None:
        """Where a label file lies; None without a path."""
        is_uri = self.beside is not None and path.startswith(self.beside + "/")
        return (path if is_uri else storage.join(self.folder, path)) if path else None


def read(spec) -> RawSource:
    """Read class names and the lists of files; label files are read with the images."""
    folder = YoloFolder.at(spec.uri, spec.settings)
    classes = tuple(spec.classes or folder.class_names())
    labels = _Labels(folder)
    items, problems = {}, {}
    for split, places in (spec.splits or folder.split_places()).items():
        places = [places] if isinstance(places, str) else places
        items[split], problems[split] = _read_split(folder, labels, split, places, len(classes))
    for split, records in problems.items():
        records += labels.orphans(split, items[split])
    problems[split] += left_aside(_unused(labels))
    return RawSource(classes, tuple(range(len(classes))), items, problems)


def _unused(labels: "_Labels") -> set[str]:
    """The files that are neither read nor told of, nor labels of such a picture, nor what a folder has to have."""
    left = {path for path in labels.unused() if not path.lower().endswith(_COMPANIONS)}
    return left.difference(candidate for path in left if path.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES)
                           for candidate in label_candidates(path))


class _Labels:
    """The label files of a folder, and those beside it where the folder is itself the images directory."""

    def __init__(self, folder: YoloFolder):
        self.folder, self.files = folder, folder.files.files
        self.used = bytearray(len(self.files))
        """For each file of the folder, whether it has been read or told of."""
        head, _, tail = (storage.absolute(folder.uri) + "/").rpartition("/images/")
        self.beside_uri = storage.join(head, "labels", tail) if head else None
        self.beside: FileMap | None = None

    def use(self, path: str) -> None:
        """Mark a file, if it is one of the folder."""
        position = self.files.position(path)
        if position is not None:
            self.used[position] = True

    def unused(self) -> Iterator[str]:
        """The files that are not marked, without those that list names or explain."""
        for path, used in zip(self.files.paths(), self.used, strict=True):
            base = path.rpartition("/")[2]
            if not used and base not in _NO_LABELS and not base.lower().startswith("readme"):
                yield path

    def of(self, path: str) -> FileInfo | None:
        """The label file of an image, its path a URI where it lies outside of the folder; None if there is none."""
        for candidate in label_candidates(path):
            position = self.files.position(candidate)
            if position is not None:
                self.used[position] = True
                return self.files[position]
        for candidate in label_candidates(path) if self.odd else ():
            if (position := self.odd.get(_folded(candidate))) is not None:
                self.used[position] = True
                return self.files[position]
        if self.beside_uri is None:
            return None
        if self.beside is None:
            self.beside = storage.list_files(self.beside_uri).by_path
        found = self.beside.get(path.rpartition(".")[0] + ".txt")
        return found and replace(found, path=storage.join(self.beside_uri, found.path))

    @cached_property
    def odd(self) -> dict[str, int]:
        """Label files whose names an image may write otherwise, by accents or the case of the ending -> position."""
        return {_folded(path): position for position, path in enumerate(self.files.paths())
                if path.lower().endswith(".txt") and not (path.endswith(".txt") and path.isascii())}

    def lost_with(self, images: list[str]) -> list[int]:
        """Objects in the label files of images that cannot be used."""
        found = [next((path for name in _shortened(image) for path in label_candidates(name)
                       if path in self.folder.files), None) for image in images]
        for path in (*images, *filter(None, found)):
            self.use(path)
        return self.count(found)

    def count(self, paths: Sequence[str | None]) -> list[int]:
        """Objects in label files of the folder, 0 where there is none or it cannot be read."""
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            return list(pool.map(lambda path: _num_lines(storage.join(self.folder.uri, path)) if path else 0, paths))

    def orphans(self, split: str, items: YoloItems) -> list[dict]:
        """Records of label files beside those of the items that belong to no image of the folder."""
        directories = {label.path.rpartition("/")[0] for label in items.labels if label.path}
        left = {path for path in self.unused() if path.endswith(".txt") and path.rpartition("/")[0] in directories}
        if not left:
            return []
        orphans = sorted(left.difference(
            candidate for path in self.files.paths() if path.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES)
            for candidate in label_candidates(path)))
        for path in orphans:
            self.use(path)  # told once
        return [problem_record(split, Problem("label file without an image", path, is_image=True,
                                              num_objects=count), path)
                for path, count in zip(orphans, self.count(orphans), strict=True)]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path[:-4]) + path[-4:].lower()


def _shortened(path: str) -> Iterator[str]:
    """The path, and what is left of it below each directory above images/: a missing image may have another root."""
    parts = path.split("/")
    return ("/".join(parts[first:]) for first in range(len(parts)) if not first or "images" in parts[first:])


def _num_lines(uri: str) -> int:
    try:
        return sum(bool(line.strip()) for line in read_text(uri).splitlines())
    except (NotText, *UNREADABLE):
        return 0


def _read_split(folder: YoloFolder, labels: _Labels, split: str, places: list[str],
                num_classes: int) -> tuple[YoloItems, list[dict]]:
    images, problems = _images(labels, split, places)
    found, bare, outside = FileColumns(), [], []
    for image in images:
        label = labels.of(image.path)
        found.append(label or FileInfo("", 0, ""))
        if label is None:
            bare.append(image.path)
        elif labels.beside_uri and label.path.startswith(labels.beside_uri + "/"):
            outside.append(label.path)
    items = YoloItems(folder.uri, labels.beside_uri, range(len(images)), images, found, num_classes, folder.keypoints())
    if not items and not problems:
        raise JobError(storage.join(folder.uri, *places), "there are no images here",
                       "check source.uri and source.splits")
    if items and len(bare) == len(items):
        raise JobError(storage.join(folder.uri, places[0]), f"none of the {len(items):,} images has a label file: that "
                       f"of {bare[0]} would be {next(label_candidates(bare[0]))}",
                       "check source.uri, or leave this split out (an empty label file means an image without objects)")
    if bare:
        problems.append(note(split, "image without a label file, taken as one without objects", len(bare), bare[0]))
    if folder.keypoints() and items:
        problems.append(note(split, "keypoints left aside, the box taken", 1, "kpt_shape of data.yaml"))
    if outside:
        problems.append(note(split, "label file found beside source.uri", len(outside), outside[0]))
    return items, problems


def _images(labels: _Labels, split: str, places: list[str]) -> tuple[FileColumns, list[dict]]:
    """The images in directories, sorted, and in list files, in their order; records of the others."""
    folder, files, images, problems = labels.folder, labels.files, FileColumns(), []
    taken = bytearray(len(files))
    for name in places:
        place = folder.place(name)
        if place is None and name.endswith(".txt"):
            read_text(storage.join(folder.uri, name))  # NotFound
        if place is None:
            raise JobError(storage.join(folder.uri, name), "there are no images here",
                           "check source.uri and source.splits")
        labels.use(place)
        listed, records = (_listed if place in folder.files else _in_directory)(labels, split, place)
        problems += records
        repeated = [position for position in listed if taken[position]]
        if repeated:
            problems.append(note(split, "image listed twice", len(repeated), files[repeated[0]].path))
        for position in listed:
            if not taken[position]:
                taken[position] = labels.used[position] = True
                images.append(files[position])
    return images, problems


def _listed(labels: _Labels, split: str, place: str) -> tuple[Sequence[int], list[dict]]:
    """Positions in the folder's list of the images that a list file names, once each, and records of the others."""
    folder, files, uri = labels.folder, labels.files, storage.join(labels.folder.uri, place)
    resolver = Resolver(folder.files.where(lambda path: path.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES)), uri,
                        IMAGE_SUFFIXES)
    listed, others, missing, repeated = array("q"), [], [], 0
    taken = bytearray(len(files))
    for name in (line.strip() for line in read_text(uri).splitlines() if line.strip()):
        name = name.removeprefix(storage.absolute(folder.uri) + "/").removeprefix(folder.uri.rstrip("/") + "/")
        info = resolver.find(name)
        if info is None:
            missing.append(name)
            continue
        position = files.position(info.path)
        if taken[position]:
            repeated += 1
        elif info.path.lower().endswith(IMAGE_SUFFIXES):
            listed.append(position)
        else:
            others.append(info.path)
        taken[position] = True
    counts = labels.lost_with(["/".join(plain_parts(name)[0]) for name in missing])
    problems = [problem_record(split, Problem("missing image file", f"no file {name} below {folder.uri}",
                                              is_image=True, num_objects=count), name)
                for name, count in zip(missing, counts, strict=True)]
    if repeated:
        problems.append(note(split, "image listed twice", repeated, place))
    return listed, problems + bends(split, resolver) + _unreadable(labels, split, others)


def _in_directory(labels: _Labels, split: str, place: str) -> tuple[Sequence[int], list[dict]]:
    """Positions in the folder's list of the images below a directory, and records of pictures that cannot be read."""
    listed, pictures = array("q"), []
    prefix = "" if place == "." else place + "/"
    for position, path in enumerate(labels.files.paths()):
        if path.startswith(prefix):
            lower = path.lower()
            if lower.endswith(IMAGE_SUFFIXES):
                listed.append(position)
            elif lower.endswith(OTHER_PICTURES):
                pictures.append(path)
    return listed, _unreadable(labels, split, pictures)


def _unreadable(labels: _Labels, split: str, pictures: list[str]) -> list[dict]:
    """Records of pictures that no decoder reads."""
    pictures = sorted(pictures)
    return [problem_record(split, unreadable(path, count), path)
            for path, count in zip(pictures, labels.lost_with(pictures), strict=True)]
