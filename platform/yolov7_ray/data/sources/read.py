"""The table of formats: COCO, YOLO, Pascal VOC and generated shapes, all read into the same items."""

from ...errors import JobError
from . import coco, generated, voc, yolo
from .item import RawSource
from .spec import Source

READERS = {"coco": coco.read, "yolo": yolo.read, "voc": voc.read, "shapes": generated.read}
"""`format` of a source section -> the function that reads it."""


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
