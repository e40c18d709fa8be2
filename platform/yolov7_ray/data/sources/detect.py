"""Format `auto`: what lies in a folder, told from one listing and the first bytes of a few files."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from ... import storage
from ...errors import JobError
from ...storage.file_list import FileMap
from ..files.json_stream import members
from ..files.listing import HEAD_BYTES, MAX_PROBES, Listing
from ..files.resolver import Resolver
from ..files.split_names import split_on_path
from ..files.suffixes import IMAGE_SUFFIXES
from .annotation_tools import datumaro, kitti, labelme, via
from .annotation_tools.cvat import annotations as cvat
from .annotation_tools.labelstudio import tasks as labelstudio
from .spec import AutoSource, CocoSource, CocoSplit, Source, YoloSource
from .tables import csv_boxes, huggingface, json_files, openimages, parquet, webdataset
from .tables.splits import by_split
from .yolo_folder import YoloFolder, label_candidates

_FILE_NAME = re.compile(r'"(?:file_name|coco_url|path)"\s*:\s*("(?:[^"\\]|\\.)*")')
MAX_NAMES = 200
"""Names of images in an annotation file by which their directory is found,"""
MAX_PLACES = 50
"""and directories that may be it."""
_VOC = re.compile(r"<(\w+:)?annotation[\s>]")
_YOLO_LINE = re.compile(r"^\s*\d+(\.0*)?(\s+[-+.\deE]+){4,}\s*$")


@dataclass(frozen=True)
class Format:
    """How one format is recognised."""

    title: str
    evidence: Callable[[Listing], Collection[str]]
    """Files that only a folder of this format has, none if it has none; the first is shown to the user."""
    section: Callable[[AutoSource, Listing, Any], Source] | None = None
    """The source section that reads the folder, from its listing and the evidence; None: its reader finds the rest."""


def detected(spec: AutoSource) -> Source:
    """The source section that reads the folder; JobError where several formats fit, or none."""
    listing = Listing(spec.uri)
    if not listing.files:
        raise JobError("source.uri", f"there are no files at {spec.uri}{listing.left_out()}",
                       "set it to the root of the data")
    found = {name: evidence for name, known in FORMATS.items() if (evidence := known.evidence(listing))}
    if not found:
        kinds = Counter(f".{path.rpartition('.')[2].lower()}" for path in listing.files).most_common(6)
        titles = [known.title for known in FORMATS.values()]
        undecodable = f"; {listing.undecodable[0]}" if listing.undecodable else ""
        has_images = any(path.lower().endswith(IMAGE_SUFFIXES) for path in listing.files)
        raise JobError("source.uri", f"{spec.uri} is no dataset of a known format: it holds "
                                     f"{', '.join(f'{count:,} {suffix}' for suffix, count in kinds)}"
                                     f"{'' if has_images else ', and no image'}{listing.left_out()}{undecodable}",
                       f"give the root of {', '.join(titles[:-1])} or {titles[-1]} annotations, or set source.format")
    if len(found) > 1:
        readings = " or ".join(f"{name} ({next(iter(evidence))})" for name, evidence in found.items())
        raise JobError("source.format", f"{spec.uri} may be read as {readings}",
                       f"set source.format to {' or '.join(found)}")
    [(name, evidence)] = found.items()
    if section := FORMATS[name].section:
        return _told(section(spec, listing, evidence), spec)
    return _told(TypeAdapter(Source).validate_python({"format": name, "uri": spec.uri, "classes": spec.classes}), spec)


def _told(section: Source, spec: AutoSource) -> Source:
    """The section with what the job tells of its boxes; JobError where the format itself says that."""
    told = {key: value for key in ("box", "coordinates") if (value := getattr(spec, key)) is not None}
    for key in told:
        if key not in type(section).model_fields:
            raise JobError(f"source.{key}", f"{spec.uri} is read as {section.format}, which says that itself",
                           "leave it out")
    return section.model_copy(update=told)


# --- COCO -----------------------------------------------------------------------------------------------


def _coco_files(listing: Listing) -> dict[str, list[str]]:
    """COCO JSON files -> the first file names in each."""
    found = {}
    for path in listing.probes(".json"):
        text = listing.start(path)
        is_object = text.lstrip().startswith("{")
        lists = {key for key, first in members(text).items() if first == "["} if is_object else set()
        goes_on = listing.files[path].num_bytes > HEAD_BYTES  # categories alone are notes of other tools
        if lists & {"images", "annotations"} or goes_on and "categories" in lists:
            names = itertools.islice(_FILE_NAME.finditer(text), MAX_NAMES)
            found[path] = [json.loads(name[1], strict=False) for name in names]
    instances = {path: name for path, name in found.items() if "instances" in path}
    return instances or {path: name for path, name in found.items() if "captions" not in path}


def _coco_section(spec: AutoSource, listing: Listing, annotations: dict[str, list[str]]) -> CocoSource:
    chosen = by_split(annotations, "set source.format: coco, and source.splits: {train: {images: …, annotations: …}}")
    splits = {split: CocoSplit(images=_images_of(split, path, annotations[path], listing.files), annotations=path)
              for split, path in chosen.items()}
    return CocoSource(format="coco", uri=spec.uri, splits=splits)


def _images_of(split: str, path: str, names: list[str], files: FileMap) -> str:
    """The directory below which the first images of an annotation file lie, most of them as they are named: one called
    like the split or named in the file's name, or beside the file."""
    images = files.where(lambda image: image.lower().endswith(IMAGE_SUFFIXES))
    directories = {"/".join(parts[:length]) for image in images
                   for parts in [image.split("/")[:-1]] for length in range(1, len(parts) + 1)}
    beside, stem = path.rpartition("/")[0], path.rpartition("/")[2].rpartition(".")[0]
    words = re.split(r"[^a-z0-9]+", stem.lower())
    called = [directory for directory in sorted(directories, key=lambda directory: (directory.count("/"), directory))
              if split_on_path(directory) == split or directory.rpartition("/")[2].lower() in words]
    places = [*called[:MAX_PLACES], beside, "images", "."]

    def as_written(inside: FileMap, directory: str) -> int:
        return sum(name in inside for name in names)

    def in_other_words(inside: FileMap, directory: str) -> int:
        resolver = Resolver(inside, directory, IMAGE_SUFFIXES)
        try:
            return sum(resolver.find(name) is not None for name in names)
        except JobError:  # ambiguous there
            return 0

    for count in (as_written, in_other_words):
        counts = [count(images.below(directory.strip(".")), directory) for directory in places]
        if 2 * max(counts) > len(names):
            break
    return max(counts) and places[counts.index(max(counts))] or "."


# --- YOLO and Pascal VOC --------------------------------------------------------------------------------


def _yolo_evidence(listing: Listing) -> list[str]:
    """A data.yaml with names, at the root or with images below its directory, or a label file of an image."""
    files = listing.files
    settings = _settings(listing)
    if found := [path for path in settings if "/" not in path]:
        return found
    if found := [path for path in settings if any(image.lower().endswith(IMAGE_SUFFIXES) for image
                                                  in files.below(path.rpartition("/")[0]))]:
        return found
    labels = (label for path in files if path.lower().endswith(IMAGE_SUFFIXES)
              for label in label_candidates(path) if label in files)
    for _, label in zip(range(MAX_PROBES), labels):
        lines = [line for line in listing.start(label).splitlines()[:20] if line.strip()]
        if lines and all(map(_YOLO_LINE.match, lines[:-1] or lines)):
            return [label]
    return []


def _settings(listing: Listing) -> list[str]:
    """The YAML files with names nearest to the root."""
    found = [path for path in listing.probes(".yaml", ".yml")
             if re.search(r"^\s*names\s*:", listing.start(path), re.MULTILINE)]
    return [path for path in found if path.count("/") == found[0].count("/")]


def _yolo_section(spec: AutoSource, listing: Listing, evidence: list[str]) -> YoloSource:
    settings = None
    if nested := [path for path in _settings(listing) if "/" in path]:
        if len(nested) > 1:
            raise JobError("source.uri", f"{nested[0]} and {nested[1]} each describe a data set",
                           "give the directory of one, or each of them in `sources`")
        settings = storage.join(listing.uri, nested[0])
    return YoloSource(format="yolo", uri=spec.uri, classes=spec.classes, settings=settings,
                      splits=YoloFolder.at(spec.uri, settings).split_places())


def _voc_evidence(listing: Listing) -> list[str]:
    """Annotation files."""
    return [path for path in listing.probes(".xml") if _VOC.search(listing.start(path))]


FORMATS = {
    "coco": Format("COCO JSON", _coco_files, _coco_section),
    "csv": Format("CSV", csv_boxes.evidence),
    "cvat": Format("CVAT XML", cvat.evidence),
    "datumaro": Format("Datumaro JSON", datumaro.evidence),
    "huggingface": Format("Hugging Face", huggingface.evidence),
    "json": Format("JSON", json_files.evidence),
    "kitti": Format("KITTI text", kitti.evidence),
    "labelme": Format("LabelMe JSON", labelme.evidence),
    "labelstudio": Format("Label Studio JSON", labelstudio.evidence),
    "openimages": Format("OpenImages CSV", openimages.evidence),
    "parquet": Format("Parquet", parquet.evidence),
    "via": Format("VIA JSON", via.evidence),
    "voc": Format("Pascal VOC XML", _voc_evidence),
    "webdataset": Format("WebDataset", webdataset.evidence),
    "yolo": Format("YOLO text", _yolo_evidence, _yolo_section),
}
"""`format` of a source section -> how it is recognised; `read.py` has the table of readers."""
