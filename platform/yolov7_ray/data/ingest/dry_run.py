"""Dry run of an ingest job."""

from ... import storage
from ...errors import JobError
from ...jobs.kind import Line
from ..dry_run import in_words
from ..manifest import MANIFEST
from .spec import IngestSpec


def ingest_lines(spec: IngestSpec) -> list[Line]:
    """Source and dataset; JobError if a split is missing."""
    source = spec.source
    if source.format == "shapes":
        lines = [("source", f"{in_words(source.splits)} generated, {source.image_size_px} px")]
    elif source.format == "auto":
        from ..sources.read import described, opened  # they import numpy

        lines = [("source", described(*opened(source)))]
    else:
        from ..sources.read import resolved

        source = resolved(source)
        for split, where in (source.splits or {}).items():
            for place in where if isinstance(where, list) else [getattr(where, "annotations", where)]:
                path = storage.join(source.uri, place)
                if not storage.exists(path):
                    raise JobError(f"source.splits.{split}", f"{path} does not exist",
                                   "set source.uri to the root of the data, and source.splits to what lies below it")
        if not storage.exists(source.uri):
            raise JobError("source.uri", f"{source.uri} does not exist", "set it to the root of the data")
        splits = ", ".join(source.splits) if source.splits else "the splits that are found there"
        lines = [("source", f"{source.format} at {source.uri}: {splits}")]
    state = "will be written"
    if storage.exists(storage.join(spec.dataset, MANIFEST)):
        state = "exists; it will be replaced" if spec.overwrite else "exists already"
    return [*lines, ("dataset", f"{spec.dataset} {state}")]
