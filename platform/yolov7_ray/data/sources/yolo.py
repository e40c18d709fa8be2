"""YOLO text labels: one file per image, one line per object: class cx cy w h, or class and a polygon.

All coordinates are fractions of the image's width and height. An image without a label file has no objects.
"""

import re
from dataclasses import dataclass

import numpy as np
import yaml

from ... import storage
from ...errors import JobError, NotFound
from ...storage.disk import FileInfo
from .item import IMAGE_SUFFIXES, Item, Raw, RawSource, problem_record
from .objects import Annotation, Objects, Problem
from .text import read_text


class _Text(yaml.SafeLoader):
    """Every plain value is the text that is written."""

    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # merge keys


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloItem(Item):
    """An image whose labels are in a separate file, read with the image."""

    uri: str
    labels_uri: str | None
    num_classes: int

    def fetch(self) -> Raw:
        """Read the image and its labels."""
        text = read_text(self.labels_uri) if self.labels_uri else ""
        return Raw(storage.read_bytes(self.uri), Objects.of(parse_labels(text, self.num_classes)), relative=True)


def read(spec) -> RawSource:
    """Read class names and the lists of files; label files are read with the images."""
    classes = tuple(spec.classes or _class_names(spec.uri))
    files = {info.path: info for info in storage.list_files(spec.uri)}
    items, problems = {}, {}
    for split, place in spec.splits.items():
        items[split], problems[split] = _read_split(spec.uri, split, place, files, len(classes))
    return RawSource(classes, tuple(range(len(classes))), items, problems)


def _class_names(uri: str) -> list[str]:
    try:
        return names_in(storage.read_bytes(storage.join(uri, "data.yaml")))
    except NotFound:
        pass  # classes.txt is the alternative
    except (yaml.YAMLError, ValueError) as error:
        raise JobError(storage.join(uri, "data.yaml"), f"has no usable `names` ({' '.join(str(error).split())})",
                       "list the class names there, or set source.classes") from None
    try:
        return [line.strip() for line in read_text(storage.join(uri, "classes.txt")).splitlines() if line.strip()]
    except NotFound:
        raise JobError(uri, "there is neither data.yaml nor classes.txt", "set source.classes") from None


def names_in(text: bytes) -> list[str]:
    """The class names of a data.yaml, a list or a mapping from index to name, each as it is written there.

    A name is text, also where YAML would read something else: on, off, 010, 1e3, null, ~. yaml.YAMLError if it is no
    YAML, ValueError if there are no names in it.
    """
    document = yaml.load(text, Loader=_Text)
    names = document.get("names") if isinstance(document, dict) else None
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


def _read_split(uri: str, split: str, place: str, files: dict[str, FileInfo],
                num_classes: int) -> tuple[list[Item], list[dict]]:
    items: list[Item] = []
    problems: list[dict] = []
    seen: set[str] = set()
    for path in _image_paths(uri, place, files):
        problem = None
        if path in seen:
            problem = Problem("duplicate image id", "the image is listed twice", is_image=True)
        elif path not in files:
            problem = Problem("missing image file", f"no file {path} below {uri}", is_image=True)
        if problem:
            problems.append(problem_record(split, problem, path))
            continue
        seen.add(path)
        labels = files.get(labels_path(path))
        items.append(YoloItem(
            image_id=len(items), file_name=path, num_bytes=files[path].num_bytes,
            mark=f"{files[path].mark} {labels and labels.mark} {labels and labels.num_bytes}",
            uri=storage.join(uri, path), labels_uri=storage.join(uri, labels.path) if labels else None,
            num_classes=num_classes))
    if not items:
        raise JobError(storage.join(uri, place), "there are no images here", "check source.uri and source.splits")
    return items, problems


def _image_paths(uri: str, place: str, files: dict[str, FileInfo]) -> list[str]:
    """Paths below `uri`: those in a list file, or all images below a directory, sorted."""
    if place.endswith(".txt"):
        lines = (line.strip() for line in read_text(storage.join(uri, place)).splitlines())
        return [line.removeprefix(uri).lstrip("/").removeprefix("./") for line in lines if line]
    directory = place.strip("/").removeprefix("./") + "/"
    return [path for path in sorted(files)
            if path.startswith(directory) and path.lower().endswith(IMAGE_SUFFIXES)]


def labels_path(image_path: str) -> str:
    """``…/images/…/x.jpg`` -> ``…/labels/…/x.txt``; without such a directory, beside the image."""
    swapped = re.sub(r"^(.*/)?images/", r"\1labels/", image_path)
    return swapped.rsplit(".", 1)[0] + ".txt"


def parse_labels(text: str, num_classes: int) -> list[Annotation | Problem]:
    """One entry per line that is not empty, with boxes in fractions of the image."""
    return [_parse_line(line, number, num_classes)
            for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _parse_line(line: str, number: int, num_classes: int) -> Annotation | Problem:
    try:
        label, *values = map(float, line.split())
        label = int(label)
    except (ValueError, OverflowError):
        return Problem("malformed label", f"line {number}: {line[:80]!r}")
    if not 0 <= label < num_classes:
        return Problem("unknown class", f"line {number}: class {label} of {num_classes}")
    if len(values) == 4:
        cx, cy, width, height = values
        return Annotation(label, (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))
    if len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[0::2], values[1::2]
        return Annotation(label, (min(xs), min(ys), max(xs), max(ys)),
                          polygons=(np.asarray(values, np.float32),))
    return Problem("malformed label", f"line {number}: {len(values)} numbers after the class")
