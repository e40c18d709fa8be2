"""The table of formats, all read into the same items."""

from ...errors import JobError
from . import coco, generated, voc, yolo
from .annotation_tools import cvat, kitti, labelme, labelstudio
from .detect import detected
from .item import RawSource
from .spec import AutoSource, Source
from .tables import csv_boxes, huggingface, openimages, parquet, webdataset

READERS = {
    "coco": coco.read,
    "csv": csv_boxes.read,
    "cvat": cvat.read,
    "huggingface": huggingface.read,
    "kitti": kitti.read,
    "labelme": labelme.read,
    "labelstudio": labelstudio.read,
    "openimages": openimages.read,
    "parquet": parquet.read,
    "shapes": generated.read,
    "voc": voc.read,
    "webdataset": webdataset.read,
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
    return f"{spec.format} at {spec.uri}: {images}; {len(source.classes)} classes ({names}); e.g. {first}"


def read_source(spec: Source) -> RawSource:
    """Read the source described by `spec`, the source section of an ingest job, without the images."""
    source = READERS[spec.format](spec)
    repeated = sorted({name for name in source.classes if source.classes.count(name) > 1})
    if repeated:
        raise JobError("source", f"several classes are called {', '.join(map(repr, repeated))}",
                       "give every class its own name")
    if not source.classes:
        raise JobError("source", "it has no classes", "name at least one")
    return source
