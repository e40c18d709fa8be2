"""The table of formats, all read into the same items."""

import itertools
import re
from dataclasses import replace

from ... import storage
from ...errors import JobError
from ...storage.file_list import FileList
from ...storage.location import scheme_of
from ..files.listing import Listing
from ..files.place import SETTINGS, located, only_file, settings_root
from ..files.suffixes import IMAGE_SUFFIXES
from . import coco, generated, voc, yolo
from .annotation_tools import datumaro, kitti, labelme, via
from .annotation_tools.cvat import annotations as cvat
from .annotation_tools.labelstudio import tasks as labelstudio
from .detect import FORMATS, detected
from .item import RawSource, note, problem_record
from .objects import Problem
from .several import background
from .several.joined import joined
from .spec import AutoSource, Source, YoloSource
from .tables import csv_boxes, huggingface, json_files, openimages, parquet, webdataset
from .yolo_folder import read_settings

MAX_PROBED = 1000
"""Images of a split among which an object that is lost is looked for."""
READERS = {
    "background": background.read,
    "coco": coco.read,
    "csv": csv_boxes.read,
    "cvat": cvat.read,
    "datumaro": datumaro.read,
    "huggingface": huggingface.read,
    "json": json_files.read,
    "kitti": kitti.read,
    "labelme": labelme.read,
    "labelstudio": labelstudio.read,
    "openimages": openimages.read,
    "parquet": parquet.read,
    "shapes": generated.read,
    "via": via.read,
    "voc": voc.read,
    "webdataset": webdataset.read,
    "yolo": yolo.read,
}
"""`format` of a source section -> the function that reads it."""


def resolved(spec: Source) -> Source:
    """The section with the folder that its uri means, and for format `auto` the one that reads what lies there."""
    if "uri" not in type(spec).model_fields:
        return spec
    with storage.listed_once() as lists:
        uri, file = located(spec.uri)
        if (scheme_of(spec.uri), scheme_of(uri)) == ("", "tar") and not _is_known(spec, uri):
            uri, _, file = storage.absolute(spec.uri).rpartition("/")  # a shard of samples, not a folder that was packed
        spec = spec.model_copy(update={"uri": uri})
        if file:
            return _of_file(spec, file, lists)
        return detected(spec) if isinstance(spec, AutoSource) else spec


def _is_known(spec: Source, uri: str) -> bool:
    """Whether what lies in an archive is a folder of the format, of any for `auto`."""
    listing = Listing(uri)
    return any(known.evidence(listing) for name, known in FORMATS.items() if spec.format in ("auto", name))


def _of_file(spec: Source, file: str, lists: dict[str, FileList]) -> Source:
    """The section that reads one annotation file of a folder and the images that belong to it."""
    if spec.splits and "splits" in spec.model_fields_set:
        raise JobError("source.splits", f"source.uri names the file {file}, whose splits are read",
                       "leave source.splits out, or give the folder")
    given, asked, where = spec, spec.format, storage.join(spec.uri, file)
    told = {key: getattr(spec, key, None) for key in ("classes", "box", "coordinates")}
    if file.lower().endswith(SETTINGS):
        root = settings_root(where, str(read_settings(where).get("path") or ""))
        spec = YoloSource(format="yolo", uri=root, classes=told["classes"], settings=where)
    else:
        uri, listed = only_file(spec.uri, file)
        lists[uri] = listed
        try:
            spec = detected(AutoSource(format="auto", uri=uri, **told))
        except JobError as error:
            if error.where != "source.uri":
                raise
            raise JobError("source.uri", f"{where} holds no annotations of a known format", error.remedy) from None
    if asked not in ("auto", spec.format):
        raise JobError("source.format", f"{where} is read as {spec.format}, not as {asked}", "set it to auto")
    return spec if asked in ("auto", "yolo") else given.model_copy(update={"uri": spec.uri, "splits": spec.splits})


def opened(spec: Source) -> tuple[Source, RawSource]:
    """The source section that reads what lies there, and what it reads: each folder is listed once."""
    with storage.listed_once():
        found = resolved(spec)
        return found, read_source(found)


def described(spec: Source, source: RawSource) -> str:
    """What was understood of a source: format, splits and counts, classes, an example."""
    images = ", ".join(f"{split} {len(items):,} images" for split, items in source.splits.items())
    names = ", ".join(source.classes[:8]) + (", …" if len(source.classes) > 8 else "")
    first = next((items[0].file_name for items in source.splits.values() if len(items)), "none")
    place = f" at {storage.shown(spec.uri)}" if hasattr(spec, "uri") else ""
    return f"{spec.format}{place}: {images}; {len(source.classes)} classes ({names}); e.g. {first}"


def read_source(spec: Source) -> RawSource:
    """Read the source described by `spec`, the source section of an ingest job, without the images."""
    source = _read(spec)
    if source.classes:
        return source
    if lost := _first_loss(source):
        raise JobError("source", f"no object is left: {lost}", "mend the source, or check the keys of source")
    raise JobError("source", "it has no classes", "name at least one; images without labels go into `sources`, "
                                                  "with others that have labels")


def _first_loss(source: RawSource) -> str:
    """The first image or object that is lost, and why; empty if there is none."""
    lost = (f"{record['reason']} ({record['detail']})" for records in source.problems.values() for record in records
            if record["dropped"])
    unusable = (f"{problem.reason} ({item.file_name}: {problem.detail})" for items in source.splits.values()
                for item in items[:MAX_PROBED] if (known := item.known()) for problem in known[0].problems.values())
    return next(itertools.chain(lost, unusable), "")


def read_all(spec) -> tuple[RawSource, list[str]]:
    """The source of an ingest job, its `sources` joined, and what was understood of each."""
    if spec.sources is None:
        section, source = opened(spec.source)
        return source, [described(section, source)]
    sources, lines = {}, []
    for number, (name, section) in enumerate(named(spec.sources).items()):
        try:
            with storage.listed_once():
                section = resolved(section)
                sources[name] = _read(section)
        except JobError as error:  # they name the keys of `source`
            where, remedy = (re.sub(r"\bsource(?=\.|$)", f"sources.{number}", text)
                             for text in (error.where, error.remedy))
            raise type(error)(where, error.problem, remedy) from None
        lines.append(f"{name}: {described(section, sources[name])}")
    return joined(sources), lines


def named(sections: list[Source]) -> dict[str, Source]:
    """Each source by its name: its own, else the last directory of its URI; -2, -3, … where that is taken."""
    found = {section.name: section for section in sections if section.name}
    names = []
    for section in sections:
        last = getattr(section, "uri", section.format).rstrip("/").rpartition("/")[2]
        plain = re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("-._")[:50] or section.format
        number, name = 1, section.name or plain
        while not section.name and name in found:
            number += 1
            name = f"{plain}-{number}"
        found[name] = section
        names.append(name)
    return {name: found[name] for name in names}


def _read(spec: Source) -> RawSource:
    with storage.listed_once() as lists:
        source = READERS[spec.format](spec)
        if "uri" in type(spec).model_fields and source.splits:
            split = next(iter(source.splits))
            source.problems.setdefault(split, []).extend(_left_out(split, storage.absolute(spec.uri), lists))
    repeated = sorted({name for name in source.classes if source.classes.count(name) > 1})
    if repeated:
        raise JobError("source", f"several classes are called {', '.join(map(repr, repeated))}",
                       "give every class its own name")
    place = storage.shown(spec.uri) if hasattr(spec, "uri") else None
    return replace(source, origin={"format": spec.format, "uri": place})


def _left_out(split: str, uri: str, lists: dict[str, FileList]) -> list[dict]:
    """Records of what the lists of a source left out: what cannot be read or named, links in a circle."""
    skipped = {skip for root, files in lists.items() for skip in files.skipped
               if f"{root}/".startswith(f"{uri}/") or f"{uri}/".startswith(f"{root}/")}
    return [problem_record(split, Problem(f"left out: {skip.reason}", skip.path, is_image=True), skip.path)
            if skip.is_directory or skip.path.lower().endswith(IMAGE_SUFFIXES) else
            note(split, f"left out: {skip.reason}", 1, skip.path) for skip in sorted(skipped)]
