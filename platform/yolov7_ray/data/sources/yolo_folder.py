"""What a YOLO folder says about itself: class names, splits, where the labels of an image lie, and what is in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import yaml

from ... import storage
from ...errors import JobError
from ...storage.disk import FileInfo
from ...storage.file_list import FileMap
from ..files.resolver import Resolver, plain_parts
from ..files.split_names import SPLITS
from ..files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ..files.text import decode, read_bytes, read_text
from .objects import Annotation, Problem

CONFIDENCE = "label with a sixth number, as predictions have (confidence)"
IN_PIXELS = "label in pixels, not in fractions of the image"
MAX_FRACTION = 4
"""A number beyond this is one of pixels."""
NAME_FILES = ("obj.names", "classes.txt", "_darknet.labels")
MAX_NAME_FILES = 20
_SETTINGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


class _Text(yaml.SafeLoader):
    """Every plain value is the text that is written."""

    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # merge keys


@dataclass(frozen=True)
class YoloFolder:
    """The files of a folder and what its data.yaml says."""

    uri: str
    files: FileMap
    settings: dict
    """Of data.yaml, all values as text; empty without one."""
    settings_uri: str
    """Where data.yaml lies; empty without one."""

    @classmethod
    def at(cls, uri: str, settings_uri: str | None = None) -> "YoloFolder":
        """List the folder and read its data.yaml, or the one that is given; JobError if that is no YAML."""
        files = storage.list_files(uri).by_path
        if settings_uri is None:
            others = [path for path in files if "/" not in path and path.endswith((".yaml", ".yml"))]
            path = next((path for path in (*_SETTINGS, *others) if path in files), None)
            settings_uri = storage.join(uri, path) if path else ""
        return cls(uri, files, read_settings(settings_uri) if settings_uri else {}, settings_uri)

    def class_names(self) -> list[str]:
        """The class names in order of index; JobError if they are nowhere, or no names."""
        if self.settings_uri:
            try:
                return names_of(self.settings)
            except ValueError as error:
                raise _unusable(self.settings_uri, error) from None
        found = sorted((path for path in self.files if path.rpartition("/")[2] in NAME_FILES or path.endswith(".names")),
                       key=lambda path: path.count("/"))
        listed: dict[tuple[str, ...], str] = {}
        for path in [path for path in found if path.count("/") == found[0].count("/")][:MAX_NAME_FILES]:
            lines = read_text(storage.join(self.uri, path)).splitlines()
            listed.setdefault(tuple(line.strip() for line in lines if line.strip()), path)
        if not listed:
            raise JobError(self.uri, "there is neither data.yaml nor classes.txt", "set source.classes")
        if len(listed) > 1:
            raise JobError(self.uri, f"{' and '.join(list(listed.values())[:2])} list different class names",
                           "set source.classes, or make them the same")
        return list(next(iter(listed)))

    def keypoints(self) -> int:
        """Numbers after the box on a line of pose labels, by kpt_shape; 0 without it."""
        try:
            points, values = map(int, self.settings.get("kpt_shape") or (0, 0))
        except (TypeError, ValueError):
            raise JobError(self.settings_uri, f"kpt_shape is {self.settings['kpt_shape']!r}",
                           "it is [points, values per point]") from None
        return points * values

    def split_places(self) -> dict[str, list[str]]:
        """Splits that data.yaml names and the folder has, else those whose directory or list is found."""
        named = {split: _places(self.settings[key]) for split, keys in SPLITS.items()
                 for key in keys if self.settings.get(key)}
        if named:
            present = {split: places for split, places in named.items()
                       if all(self.place(place) is not None for place in places)}
            if not present:
                split, places = next(iter(named.items()))
                raise JobError(self.settings_uri, f"{split}: {', '.join(places)} is not below "
                               f"{self.uri}", "set source.uri to the root of the data, or source.splits")
            return present
        return {split: [found] for split, words in SPLITS.items() if (found := self._found(words)) is not None} or (
            {"train": ["."]} if any(path.lower().endswith(IMAGE_SUFFIXES) for path in self.files) else
            {"train": ["images/train"]})

    def _found(self, words: tuple[str, ...]) -> str | None:
        known = self.directories.files
        return next((place for word in words for place in (f"images/{word}", f"{word}/images", word, f"{word}.txt")
                     if place in known or place in self.files), None)

    def place(self, name: str) -> str | None:
        """A directory or list file below the folder as data.yaml or a job names it; None if it is not there."""
        parts, _ = plain_parts(name)
        if not parts:
            return "."
        root = plain_parts(str(self.settings.get("path") or ""))[0]
        is_below = self.settings_uri.startswith(self.uri.rstrip("/") + "/")
        above = self.settings_uri[len(self.uri.rstrip("/")) + 1:].rpartition("/")[0] if is_below else ""
        for index in (self.lists, self.directories):
            for candidate in (*(["/".join([above, *parts])] if above else []), "/".join([*root, *parts]), name):
                if found := index.find(candidate):
                    return found.path
        return None

    @cached_property
    def lists(self) -> Resolver:
        """The .txt files directly in the folder or in data/."""
        return Resolver(self.files.where(lambda path: path.endswith(".txt") and (
            path.count("/") == 0 or "labels" not in path)), self.uri, ())

    @cached_property
    def directories(self) -> Resolver:
        """All directories with images below them."""
        found: dict[str, FileInfo] = {}
        for path in self.files:
            if not path.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES):
                continue
            directory = path.rpartition("/")[0]
            while directory and directory not in found:
                found[directory] = FileInfo(directory, 0, "")
                directory = directory.rpartition("/")[0]
        return Resolver(found, self.uri, ())


def read_settings(where: str) -> dict:
    """What a data.yaml says, all values as text; JobError if it is no YAML."""
    text = decode(read_bytes(where), where)
    try:
        settings = yaml.load(text, Loader=_Text)
    except yaml.YAMLError as error:
        raise _unusable(where, error) from None
    return settings if isinstance(settings, dict) else {}


def _unusable(where: str, error: Exception) -> JobError:
    return JobError(where, f"has no usable `names` ({' '.join(str(error).split())})",
                    "list the class names there, or set source.classes")


def _places(value: Any) -> list[str]:
    return [str(place) for place in value] if isinstance(value, list) else [str(value)]


def names_of(settings: dict) -> list[str]:
    """The class names of a data.yaml: a list, a mapping from index to name, or one name, as written there.

    A name is text, also where YAML would read something else: on, off, 010, 1e3, null, ~. ValueError if there are none.
    """
    names = settings.get("names")
    if isinstance(names, str) and names.strip():
        if str(settings.get("nc", "1")).strip() != "1":
            raise ValueError(f"it must be a list of names: nc is {settings['nc']}, and names the one text {names!r}")
        names = [names]
    if isinstance(names, dict):
        unnamed = [index for index in range(len(names)) if str(index) not in names]
        if unnamed:
            raise ValueError(f"{len(names)} names, but none for class {unnamed[0]}")
        names = [names[str(index)] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError("it must be a list of names, or a mapping from 0, 1, … to names")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"class {index} is {name!r}, not a name")
    return names


def label_candidates(image_path: str) -> Iterator[str]:
    """Where the labels of an image may lie, likeliest first.

    labels/ in place of each images/, beside the image, in labels/ beside the image or above everything, or in
    annotations/ in place of images/.
    """
    *directories, base = image_path.split("/")
    label = base.rpartition(".")[0] + ".txt"
    images = [position for position in reversed(range(len(directories))) if directories[position].lower() == "images"]
    for position in images:
        swapped = {"Images": "Labels", "IMAGES": "LABELS"}.get(directories[position], "labels")
        yield "/".join([*directories[:position], swapped, *directories[position + 1:], label])
    yield "/".join([*directories, label])
    yield "/".join([*directories, "labels", label])
    yield "/".join(["labels", *directories, label])
    if directories[:1] and directories[0].lower() == "images":
        yield "/".join(["labels", label])
    for position in images:
        yield "/".join([*directories[:position], "annotations", *directories[position + 1:], label])


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
        hint = " (do the classes count from 1?)" if label == num_classes else ""
        return Problem("unknown class", f"line {number}: class {label} of {num_classes}{hint}")
    if len(values) == 4 and MAX_FRACTION < max(map(abs, values)) < np.inf:
        return Problem(IN_PIXELS, f"line {number}: {line[:80]!r}")
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
