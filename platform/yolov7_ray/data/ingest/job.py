"""The ingest job."""

from typing import Any

from ...jobs.kind import ExpectedDataset, JobKind, Line, Upcoming
from ...program import command
from ..sources.spec import SHAPE_CLASSES
from .spec import IngestSpec


class Ingest(JobKind[IngestSpec]):
    """Raw images and annotations -> an Arrow dataset."""

    spec = IngestSpec
    outputs = {"dataset": "dataset", "fingerprint": "fingerprint"}
    example = {"source": {"format": "auto", "uri": "data/mine"}, "dataset": "datasets/mine"}

    def run(self, spec: IngestSpec, run_name: str) -> dict[str, Any]:
        from .ingest import ingest

        return ingest(spec, run_name)

    def dry_run(self, spec: IngestSpec, upcoming: Upcoming) -> list[Line]:
        from .dry_run import ingest_lines

        return ingest_lines(spec)

    def next_command(self, spec: IngestSpec, outputs: dict[str, Any]) -> str:
        return f"{command('new train my-train.yaml')}, and set `dataset: {outputs['dataset']}` in it"

    def datasets_made(self, spec: IngestSpec) -> list[ExpectedDataset]:
        source = spec.source
        if source is None:
            return [ExpectedDataset(spec.dataset, tuple(spec.splits or ()), {}, tuple(spec.classes or ()) or None)]
        generated = source.format == "shapes"
        classes = spec.classes or getattr(source, "classes", None) or (SHAPE_CLASSES if generated else None)
        splits = spec.splits or getattr(source, "splits", None) or ()
        return [ExpectedDataset(spec.dataset, tuple(splits), dict(splits) if generated and not spec.splits else {},
                                tuple(classes) if classes else None)]


KIND = Ingest()
