"""The export-dataset job."""

from typing import Any

from ...jobs.kind import JobKind, Line, Upcoming
from .spec import ExportDatasetSpec


class ExportDataset(JobKind[ExportDatasetSpec]):
    """Arrow dataset -> files of another format."""

    spec = ExportDatasetSpec
    outputs = {"output": "directory"}
    example = {"dataset": "datasets/coco", "format": "coco", "output": "exported/coco"}

    def run(self, spec: ExportDatasetSpec, run_name: str) -> dict[str, Any]:
        from .export import export

        return export(spec, run_name)

    def check_inputs(self, spec: ExportDatasetSpec, upcoming: Upcoming) -> None:
        from ..manifest import require_dataset

        require_dataset(spec.dataset, upcoming)

    def dry_run(self, spec: ExportDatasetSpec, upcoming: Upcoming) -> list[Line]:
        return [("export", f"{spec.dataset} as {spec.format} into {spec.output}")]


KIND = ExportDataset()
