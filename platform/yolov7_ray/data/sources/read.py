"""The table of formats, all read into the same items."""

import re
from dataclasses import replace

from ...errors import JobError
from . import coco, generated, voc, yolo
from .annotation_tools import cvat, kitti, labelme, labelstudio
from .detect import detected
from .item import RawSource
from .several import background
from .several.joined import joined
from .spec import AutoSource, Source

READERS = {
    "background": background.read,
    "coco": coco.read,
    "cvat": cvat.read,
    "kitti": kitti.read,
    "labelme": labelme.read,
    "labelstudio": labelstudio.read,
    "shapes": generated.read,
    "voc": voc.read,
    "yolo": yolo.read,
}
"""`format` of a source section -> the function that reads it."""


def resolved(spec: Source) -> Source:
    """The source section itself, or for format `auto` the one that reads what lies there."""
    return detected(spec) if isinstance(spec, AutoSource) else spec


def described(spec: Source, source: RawSource) -> str:
    """What was understood of a source: format, splits and counts, classes, an example."""
    images = ", ".join(f"{split} {len(items):,} images" for split, items in source.splits.items())
    names = ", ".join(source.classes[:8]) + (", …" if len(source.classes) > 8 else "")
    first = next((items[0].file_name for items in source.splits.values() if len(items)), "none")
    place = f" at {spec.uri}" if hasattr(spec, "uri") else ""
    return f"{spec.format}{place}: {images}; {len(source.classes)} classes ({names}); e.g. {first}"


def read_source(spec: Source) -> RawSource:
    """Read the source described by `spec`, the source section of an ingest job, without the images."""
    source = _read(spec)
    if not source.classes:
        raise JobError("source", "it has no classes", "name at least one; images without labels go into `sources`, "
                                                      "with others that have labels")
    return source


def read_all(spec) -> tuple[RawSource, list[str]]:
    """The source of an ingest job, its `sources` joined, and what was understood of each."""
    if spec.sources is None:
        section = resolved(spec.source)
        source = read_source(section)
        return source, [described(section, source)]
    sources, lines = {}, []
    for number, (name, section) in enumerate(named(spec.sources).items()):
        try:
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
    source = READERS[spec.format](spec)
    repeated = sorted({name for name in source.classes if source.classes.count(name) > 1})
    if repeated:
        raise JobError("source", f"several classes are called {', '.join(map(repr, repeated))}",
                       "give every class its own name")
    return replace(source, origin={"format": spec.format, "uri": getattr(spec, "uri", None)})
