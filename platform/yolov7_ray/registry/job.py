"""The publish job."""

from collections.abc import Mapping
from typing import Any

from ..jobs.kind import JobKind, Line, Upcoming
from ..program import command
from .spec import PublishSpec


class Publish(JobKind[PublishSpec]):
    """Checkpoint -> folded, checked, registered version."""

    spec = PublishSpec
    outputs = {"model": "model", "models": "models", "version": "version"}
    takes = JobKind.takes | {"model": ("model", "front")}
    example = {"model": "runs/my-run", "registry": "registry", "publish_as": "detector"}

    def run(self, spec: PublishSpec, run_name: str) -> dict[str, Any]:
        from .publish import publish

        return publish(spec, run_name)

    def check_inputs(self, spec: PublishSpec, upcoming: Upcoming) -> None:
        from ..data.manifest import require_dataset

        if spec.dataset is not None:
            require_dataset(spec.dataset, upcoming)

    def dry_run(self, spec: PublishSpec, upcoming: Upcoming) -> list[Line]:
        from .dry_run import publish_lines

        return publish_lines(spec, upcoming)

    def next_command(self, spec: PublishSpec, outputs: dict[str, Any]) -> str:
        return serve_command({name: served["model"] for name, served in outputs["models"].items()}, spec.registry)


def serve_command(models: Mapping[str, str], registry: str | None) -> str:
    """The command that serves models, name -> model; a single one as the job file names it."""
    where = f" --set registry={registry}" if registry else ""
    if len(models) == 1:
        [model] = models.values()
        return command(f"jobs/serve-detector.yaml --set models.detector.model={model}{where}")
    listed = ", ".join(f"{name}: {{model: '{model}'}}" for name, model in models.items())
    return command(f'jobs/serve-detector.yaml --set "models={{{listed}}}"{where}')


KIND = Publish()
