"""The train job."""

from collections.abc import Iterator
from typing import Any

from ..cluster.resources import Demand
from ..errors import JobError
from ..jobs.kind import JobKind, Line, Upcoming
from ..jobs.spec import UriPath, uris_in
from ..program import command
from .spec import TrainSpec


class Train(JobKind[TrainSpec]):
    """Arrow dataset -> trained checkpoints."""

    spec = TrainSpec
    plans_unreachable = True
    outputs = {"run": "model", "checkpoint": "model"}
    example = {"dataset": "datasets/coco", "model": {"architecture": "yolov7-tiny"}, "recipe": "auto", "epochs": 100}
    shown = {"recipe": "small"}

    def run(self, spec: TrainSpec, run_name: str) -> dict[str, Any]:
        from .trainer import train

        return train(spec, run_name)

    def demand(self, spec: TrainSpec) -> Demand:
        return spec.resources.demand()

    def check_inputs(self, spec: TrainSpec, upcoming: Upcoming) -> None:
        from ..data.manifest import require_dataset

        if spec.is_open:
            raise JobError(f"job: {spec.job}", "refers to a step, and this is no step of a pipeline",
                           "give the path or URI of a train job file")
        require_dataset(spec.dataset, upcoming)

    def check_resume(self, spec: TrainSpec, run_name: str) -> list[str]:
        from .starting_point import check_resumed

        return check_resumed(spec, self.run_directory(spec, run_name))

    def dry_run(self, spec: TrainSpec, upcoming: Upcoming) -> list[Line]:
        from .dry_run import train_lines

        return train_lines(spec, upcoming)

    def uris(self, spec: TrainSpec) -> Iterator[tuple[UriPath, str]]:
        return (found for found in uris_in(spec) if spec.gives(found[0]))

    def next_command(self, spec: TrainSpec, outputs: dict[str, Any]) -> str:
        return command(f"jobs/publish-detector.yaml --set model={outputs['run']}")


KIND = Train()
