"""The train job."""

from typing import Any

from ..cluster.resources import Demand
from ..jobs.kind import JobKind, Line, Upcoming
from .spec import TrainSpec


class Train(JobKind[TrainSpec]):
    """Arrow dataset -> trained checkpoints."""

    spec = TrainSpec
    plans_unreachable = True
    outputs = ("run", "checkpoint")
    example = {"dataset": "datasets/coco", "model": {"architecture": "yolov7-tiny"}, "recipe": "tiny", "epochs": 100}

    def run(self, spec: TrainSpec, run_name: str) -> dict[str, Any]:
        from .trainer import train

        return train(spec, run_name)

    def demand(self, spec: TrainSpec) -> Demand:
        return spec.resources.demand()

    def check_inputs(self, spec: TrainSpec, upcoming: Upcoming) -> None:
        from ..data.manifest import require_dataset

        require_dataset(spec.dataset, upcoming)

    def check_resume(self, spec: TrainSpec, run_name: str) -> list[str]:
        from .starting_point import check_resumed

        return check_resumed(spec, self.run_directory(spec, run_name))

    def dry_run(self, spec: TrainSpec, upcoming: Upcoming) -> list[Line]:
        from .dry_run import train_lines

        return train_lines(spec, upcoming)

    def next_command(self, spec: TrainSpec, outputs: dict[str, Any]) -> str:
        return f"python submit.py jobs/publish-detector.yaml --set model={outputs['run']}"


KIND = Train()
