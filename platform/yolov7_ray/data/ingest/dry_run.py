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
    raw = None
    if source.format == "shapes":
        lines = [("source", f"{in_words(source.splits)} generated, {source.image_size_px} px")]
    elif source.format == "auto":
        from ..sources.read import described, opened  # they import numpy

        found, raw = opened(source)
        lines = [("source", described(found, raw))]
    else:
        from ..sources.read import resolved

        found = resolved(source)
        for split, where in (found.splits or {}).items():
            for place in where if isinstance(where, list) else [getattr(where, "annotations", where)]:
                path = storage.join(found.uri, place)
                if not storage.exists(path):
                    raise JobError(f"source.splits.{split}", f"{path} does not exist",
                                   "set source.uri to the root of the data, and source.splits to what lies below it")
        if not storage.exists(found.uri):
            raise JobError("source.uri", f"{found.uri} does not exist", "set it to the root of the data")
        splits = ", ".join(found.splits) if found.splits else "the splits that are found there"
        lines = [("source", f"{found.format} at {found.uri}: {splits}")]
    if spec.splits:
        from ..sources.read import opened
        from .splits import in_words as made, with_splits

        raw = with_splits(raw or opened(source)[1], spec.splits, spec.group_by)
        lines.append(("splits", f"made: {made(raw)}"))
    state = "will be written"
    if storage.exists(storage.join(spec.dataset, MANIFEST)):
        state = "exists; it will be replaced" if spec.overwrite else "exists already"
    return [*lines, ("dataset", f"{spec.dataset} {state}")]
