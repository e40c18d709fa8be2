"""Dry run of an ingest job."""

from ... import storage
from ...errors import JobError
from ...jobs.kind import Line
from ..dry_run import in_words
from ..manifest import MANIFEST
from .spec import IngestSpec


def ingest_lines(spec: IngestSpec) -> list[Line]:
    """Sources, splits and dataset; JobError if a split is missing."""
    known = spec.source.format if spec.source else None
    lines = _source_as_given(spec.source) if known not in (None, "auto") else []
    if not lines or spec.splits:
        from ..sources.read import read_all  # they import numpy
        from .splits import with_splits

        source, understood = read_all(spec)
        lines = lines or [("source", line) for line in understood]
        if spec.splits:
            lines.append(("splits", f"made: {with_splits(source, spec.splits, spec.group_by, spec.pool)[1]}"))
    state = "will be written"
    if storage.exists(storage.join(spec.dataset, MANIFEST)):
        reason = _grows_not(spec)
        state = ("exists; it will be replaced" if spec.overwrite else
                 f"exists; of {reason}, it does not grow: if they changed, set overwrite: true" if reason else
                 "exists; it grows by what changed in its source")
    return [*lines, ("dataset", f"{spec.dataset} {state}")]


def _grows_not(spec: IngestSpec) -> str:
    from .growth import grows_not  # it imports numpy

    return grows_not(spec)


def _source_as_given(source) -> list[Line]:
    """A source whose format the job tells; JobError if something is missing."""
    if source.format == "shapes":
        return [("source", f"{in_words(source.splits)} generated, {source.image_size_px} px")]
    from ..sources.read import resolved  # it imports numpy

    source = resolved(source)
    places = getattr(source, "splits", None) or {}
    for split, where in places.items():
        for place in where if isinstance(where, list) else [getattr(where, "annotations", where)]:
            path = storage.join(source.uri, place)
            if not storage.exists(path):
                raise JobError(f"source.splits.{split}", f"{path} does not exist",
                               "set source.uri to the root of the data, and source.splits to what lies below it")
    if not storage.exists(source.uri):
        raise JobError("source.uri", f"{source.uri} does not exist", "set it to the root of the data")
    return [("source", f"{source.format} at {source.uri}: {', '.join(places) or 'the splits that are found there'}")]
