"""Format `auto`: what lies in a folder, told from one listing and the first bytes of a few files."""

import json
import re
from collections import Counter

from ... import storage
from ...errors import JobError
from ...storage.disk import FileInfo
from ..files.resolver import Resolver
from ..files.suffixes import IMAGE_SUFFIXES
from ..files.text import NotText, decode, decode_xml
from .spec import AutoSource, CocoSource, CocoSplit, Source, VocSource, YoloSource
from .yolo_folder import SPLITS, YoloFolder, label_candidates

HEAD_BYTES = 1 << 16
MAX_PROBES = 12
"""Files of one kind that are looked into."""
_COCO = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
_FILE_NAME = re.compile(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_VOC = re.compile(r"<(\w+:)?annotation[\s>]")
_YOLO_LINE = re.compile(r"^\s*\d+(\.0*)?(\s+[-+.\deE]+){4,}\s*$")


def detected(spec: AutoSource) -> Source:
    """The source section that reads the folder; JobError where several formats fit, or none."""
    files = {info.path: info for info in storage.list_files(spec.uri)}
    if not files:
        raise JobError("source.uri", f"there are no files at {spec.uri}", "set it to the root of the data")
    found = {name: evidence for name, evidence in (
        ("coco", _coco_files(spec.uri, files)), ("yolo", _yolo_evidence(spec.uri, files)),
        ("voc", _voc_evidence(spec.uri, files))) if evidence}
    if not found:
        kinds = Counter(f".{path.rpartition('.')[2].lower()}" for path in files).most_common(6)
        raise JobError("source.uri", f"{spec.uri} is no dataset of a known format: it holds "
                                     f"{', '.join(f'{count:,} {suffix}' for suffix, count in kinds)}",
                       "give the root of COCO JSON, YOLO text or Pascal VOC XML annotations, or set source.format")
    if len(found) > 1:
        readings = " or ".join(f"{name} ({next(iter(evidence))})" for name, evidence in found.items())
        raise JobError("source.format", f"{spec.uri} may be read as {readings}",
                       f"set source.format to {' or '.join(found)}")
    [(name, evidence)] = found.items()
    if name == "coco":
        return CocoSource(format="coco", uri=spec.uri, splits=_coco_splits(files, evidence))
    if name == "yolo":
        places = YoloFolder.at(spec.uri).split_places()
        return YoloSource(format="yolo", uri=spec.uri, classes=spec.classes, splits=places)
    return VocSource(format="voc", uri=spec.uri, classes=spec.classes)


def _head(uri: str, path: str) -> bytes:
    where = storage.join(uri, path)
    if storage.is_remote(where):
        return storage.read_bytes(where)[:HEAD_BYTES]
    with open(storage.absolute(where), "rb") as file:
        return file.read(HEAD_BYTES)


def _text(uri: str, path: str) -> str:
    """The beginning as text, empty where it is none; a character cut at its end is left out."""
    head = _head(uri, path)
    for cut in range(4):
        try:
            return (decode_xml if path.lower().endswith(".xml") else decode)(head[:len(head) - cut], path)
        except NotText:
            continue
    return ""


def _coco_files(uri: str, files: dict[str, FileInfo]) -> dict[str, str]:
    """COCO JSON files -> the first file name in each."""
    found = {}
    candidates = sorted((path for path in files if path.lower().endswith(".json")), key=lambda path: path.count("/"))
    for path in candidates[:MAX_PROBES]:
        text = _text(uri, path)
        if _COCO.search(text):
            name = _FILE_NAME.search(text)
            found[path] = json.loads(name[1], strict=False) if name else ""
    instances = {path: name for path, name in found.items() if "instances" in path}
    return instances or {path: name for path, name in found.items() if "captions" not in path}


def _coco_splits(files: dict[str, FileInfo], annotations: dict[str, str]) -> dict[str, CocoSplit]:
    chosen: dict[str, str] = {}
    for path in annotations:
        split = _split_of(path)
        if split in chosen:
            raise JobError("source.splits", f"{chosen[split]} and {path} may both be split '{split}'",
                           "set source.format: coco, and source.splits: {train: {images: …, annotations: …}}")
        chosen[split] = path
    return {split: CocoSplit(images=_images_of(split, path, annotations[path], files), annotations=path)
            for split, path in chosen.items()}


def _split_of(path: str) -> str:
    """The split by the words in a file's name, else in its directory's; train where there are none."""
    for part in reversed(path.lower().split("/")):
        found = [split for split, words in SPLITS.items() if any(word in part for word in words)]
        if len(found) == 1:
            return found[0]
    return "train"


def _images_of(split: str, path: str, name: str, files: dict[str, FileInfo]) -> str:
    """The directory below which the first image of an annotation file lies: beside it, or called like the split."""
    images = [image for image in files if image.lower().endswith(IMAGE_SUFFIXES)]
    directories = {image.rpartition("/")[0] for image in images}
    beside, stem = path.rpartition("/")[0], path.rpartition("/")[2].rpartition(".")[0]
    called = [directory for directory in sorted(directories, key=len) if directory
              and (_split_of(directory) == split and any(word in directory.lower() for word in SPLITS[split])
                   or directory.rpartition("/")[2] in stem)]
    for directory in (*called, beside, "images", "."):
        prefix = "" if directory in (".", "") else directory + "/"
        inside = {image.removeprefix(prefix): files[image] for image in images if image.startswith(prefix)}
        try:
            if inside and Resolver(inside, directory, IMAGE_SUFFIXES).find(name):
                return directory or "."
        except JobError:  # ambiguous there
            continue
    return "."


def _yolo_evidence(uri: str, files: dict[str, FileInfo]) -> list[str]:
    """A data.yaml with names, or a label file of an image."""
    settings = [path for path in files if "/" not in path and path.endswith((".yaml", ".yml"))]
    named = [path for path in settings[:MAX_PROBES] if re.search(r"^\s*names\s*:", _text(uri, path), re.MULTILINE)]
    if named:
        return named
    labels = (label for path in files if path.lower().endswith(IMAGE_SUFFIXES)
              for label in label_candidates(path) if label in files)
    for _, label in zip(range(MAX_PROBES), labels):
        lines = [line for line in _text(uri, label).splitlines()[:20] if line.strip()]
        if lines and all(map(_YOLO_LINE.match, lines[:-1] or lines)):
            return [label]
    return []


def _voc_evidence(uri: str, files: dict[str, FileInfo]) -> list[str]:
    """An annotation file."""
    candidates = [path for path in files if path.lower().endswith(".xml")]
    return [path for path in candidates[:MAX_PROBES] if _VOC.search(_text(uri, path))]
