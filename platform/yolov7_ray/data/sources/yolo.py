"""YOLO text labels: one file per image, one line per object: class cx cy w h, or class and a polygon.

All coordinates are fractions of the image's width and height. An image without a label file has no objects; a split
in which no image has one is an error. With `kpt_shape`, a line goes on with keypoints, which are left aside.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ... import storage
from ...errors import JobError
from ...storage.disk import FileInfo
from ...storage.file_list import FileMap
from ..files.resolver import Resolver
from ..files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ..files.text import NotText, read_text
from .item import UNDECODABLE, Item, Raw, RawSource, bends, note, problem_record, unreadable_pictures
from .objects import Annotation, Objects, Problem
from .yolo_folder import NAME_FILES, SPLITS, YoloFolder, label_candidates

CONFIDENCE = "label with a sixth number, as predictions have (confidence)"
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
    return RawSource(classes, tuple(range(len(classes))), items, problems)


class _Labels:
    """The label files of a folder, and those beside it where the folder is itself the images directory."""

    def __init__(self, folder: YoloFolder):
        self.folder, self.used = folder, set()
        head, _, tail = (storage.absolute(folder.uri) + "/").rpartition("/images/")
        self.beside_uri = storage.join(head, "labels", tail) if head else None
        self.beside: FileMap | None = None

    def of(self, path: str) -> tuple[FileInfo, str] | None:
        """The label file of an image and its URI, None if there is none."""
        for candidate in label_candidates(path):
            if found := self.folder.files.get(candidate):
                self.used.add(candidate)
                return found, storage.join(self.folder.uri, candidate)
        if self.beside_uri is None:
            return None
        if self.beside is None:
            self.beside = storage.list_files(self.beside_uri).by_path
        found = self.beside.get(path.rpartition(".")[0] + ".txt")
        return found and (found, storage.join(self.beside_uri, found.path))

    def orphans(self, split: str, items: list[YoloItem]) -> list[dict]:
        """Records of label files beside those of the items that belong to no image of the folder."""
        directories = {item.labels_uri.rpartition("/")[0] for item in items if item.labels_uri}
        left = [path for path in self.folder.files if path.endswith(".txt") and path not in self.used
                and storage.join(self.folder.uri, path).rpartition("/")[0] in directories
                and path.rpartition("/")[2] not in _NO_LABELS
                and not path.rpartition("/")[2].lower().startswith("readme")]
        if not left:
            return []
        belonging = {candidate for path in self.folder.files if path.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES)
                     for candidate in label_candidates(path)}
        orphans = sorted(set(left) - belonging)
        self.used |= set(orphans)  # told once
        return [problem_record(split, Problem("label file without an image", path, is_image=True), path)
                for path in orphans]


def _read_split(folder: YoloFolder, labels: _Labels, split: str, places: list[str],
                num_classes: int) -> tuple[list[YoloItem], list[dict]]:
    items: list[YoloItem] = []
    infos, problems = _images(folder, split, places)
    bare: list[str] = []
    for info in infos:
        found = labels.of(info.path)
        if found is None:
            bare.append(info.path)
        label, labels_uri = found or (None, None)
        items.append(YoloItem(
            image_id=len(items), file_name=info.path, num_bytes=info.num_bytes,
            mark=f"{info.mark} {label and label.mark} {label and label.num_bytes}",
            uri=storage.join(folder.uri, info.path), labels_uri=labels_uri, num_classes=num_classes,
            num_keypoint_values=folder.keypoints()))
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
    outside = [item for item in items if labels.beside and item.labels_uri
               and not item.labels_uri.startswith(folder.uri.rstrip("/") + "/")]
    if outside:
        problems.append(note(split, "label file found beside source.uri", len(outside), outside[0].labels_uri))
    return items, problems


def _images(folder: YoloFolder, split: str, places: list[str]) -> tuple[list[FileInfo], list[dict]]:
    """The images in directories, sorted, and in list files, in their order; records of the others."""
    found: dict[str, FileInfo] = {}
    problems: list[dict] = []
    for name in places:
        place = folder.place(name)
        if place is None and name.endswith(".txt"):
            read_text(storage.join(folder.uri, name))  # NotFound
        if place is None:
            raise JobError(storage.join(folder.uri, name), "there are no images here",
                           "check source.uri and source.splits")
        if place in folder.files:
            listed, records = _listed(folder, split, place)
        else:
            listed, records = _in_directory(folder, split, place)
        repeated = [info.path for info in listed if info.path in found]
        if repeated:
            records.append(note(split, "image listed twice", len(repeated), repeated[0]))
        found |= {info.path: info for info in listed}
        problems += records
    return list(found.values()), problems


def _listed(folder: YoloFolder, split: str, place: str) -> tuple[list[FileInfo], list[dict]]:
    uri = storage.join(folder.uri, place)
    resolver = Resolver(folder.files.where(lambda path: path.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES)), uri,
                        IMAGE_SUFFIXES)
    listed, problems, seen = [], [], 0
    names = [line.strip() for line in read_text(uri).splitlines() if line.strip()]
    found: dict[str, FileInfo] = {}
    for name in names:
        name = name.removeprefix(storage.absolute(folder.uri) + "/").removeprefix(folder.uri.rstrip("/") + "/")
        info = resolver.find(name)
        if info is None:
            missing = Problem("missing image file", f"no file {name} below {folder.uri}", is_image=True)
            problems.append(problem_record(split, missing, name))
        elif info.path in found:
            seen += 1
        else:
            found[info.path] = info
    listed = [info for path, info in found.items() if path.lower().endswith(IMAGE_SUFFIXES)]
    if seen:
        problems.append(note(split, "image listed twice", seen, place))
    return listed, problems + bends(split, resolver) + unreadable_pictures(split, list(found))


def _in_directory(folder: YoloFolder, split: str, place: str) -> tuple[list[FileInfo], list[dict]]:
    inside = [path for path in folder.files if place == "." or path.startswith(place + "/")]
    images = [info for path, info in folder.files.items() if (place == "." or path.startswith(place + "/"))
              and path.lower().endswith(IMAGE_SUFFIXES)]
    others = [path for path in inside if not path.lower().endswith(
        (*IMAGE_SUFFIXES, *OTHER_PICTURES, ".txt", ".yaml", ".yml", ".names", ".data", ".md", ".cache"))]
    problems = unreadable_pictures(split, inside)
    if others:
        problems.append(note(split, "file of another kind left aside", len(others), others[0]))
    return images, problems


def parse_labels(text: str, num_classes: int, num_keypoint_values: int = 0) -> list[Annotation | Problem]:
    """One entry per line that is not empty, with boxes in fractions of the image."""
    return [_parse_line(line, number, num_classes, num_keypoint_values)
            for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _parse_line(line: str, number: int, num_classes: int, num_keypoint_values: int) -> Annotation | Problem:
    try:
        label, *values = map(float, line.split())
        if label != int(label):
            raise ValueError
        label = int(label)
    except (ValueError, OverflowError):
        return Problem("malformed label", f"line {number}: {line[:80]!r}")
    if not 0 <= label < num_classes:
        return Problem("unknown class", f"line {number}: class {label} of {num_classes}")
    if len(values) == 4 or num_keypoint_values and len(values) == 4 + num_keypoint_values:
        cx, cy, width, height = values[:4]
        return Annotation(label, (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))
    if len(values) == 5:
        return Problem(CONFIDENCE, f"line {number}: {line[:80]!r}")
    if len(values) >= 6 and len(values) % 2 == 0 and not num_keypoint_values:
        xs, ys = values[0::2], values[1::2]
        return Annotation(label, (min(xs), min(ys), max(xs), max(ys)),
                          polygons=(np.asarray(values, np.float32),))
    return Problem("malformed label", f"line {number}: {len(values)} numbers after the class")
