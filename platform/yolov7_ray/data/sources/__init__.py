"""COCO, YOLO, Pascal VOC and generated shapes, all read into the same light items."""

from ...errors import JobError
from . import coco, generated, voc, yolo
from .item import FileItem, Item, Raw, RawSource, problem_record
from .objects import Annotation, Objects, Problem

__all__ = ["Annotation", "FileItem", "Item", "Objects", "Problem", "Raw", "RawSource", "problem_record",
           "read_source"]

_READERS = {"coco": coco.read, "yolo": yolo.read, "voc": voc.read, "shapes": generated.read}


def read_source(spec) -> RawSource:
    """Read what `spec`, the source section of an ingest job, describes: everything but the images."""
    source = _READERS[spec.format](spec)
    repeated = sorted({name for name in source.classes if source.classes.count(name) > 1})
    if repeated:
        raise JobError("source", f"several classes are called {', '.join(map(repr, repeated))}",
                       "give every class its own name")
    if not source.classes:
        raise JobError("source", "it has no classes", "name at least one")
    return source
