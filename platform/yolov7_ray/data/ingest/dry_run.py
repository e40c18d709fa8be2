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
        from ..sources.read import described, read_source, resolved  # they import numpy

        found = resolved(source)
        lines = [("source", described(found, read_source(found)))]
    else:
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
    if spec.splits:
        from ..sources.read import read_source, resolved
        from .splits import in_words as made, with_splits

        lines.append(("splits", f"made: {made(with_splits(read_source(resolved(source)), spec.splits, spec.group_by))}"))
    state = "will be written"
    if storage.exists(storage.join(spec.dataset, MANIFEST)):
        state = "exists; it will be replaced" if spec.overwrite else "exists; it grows by what changed in its source"
    return [*lines, ("dataset", f"{spec.dataset} {state}")]
