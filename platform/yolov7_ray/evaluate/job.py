"""The evaluate job."""

from typing import Any

from ..cluster.resources import Demand
from ..jobs.kind import JobKind, Line, Upcoming
from .spec import EvaluateSpec


class Evaluate(JobKind[EvaluateSpec]):
    """Model x dataset split -> COCO AP."""

    spec = EvaluateSpec
    outputs = {"run": "evaluation"}
    example = {"model": "detector@latest", "registry": "registry", "dataset": "datasets/coco"}

    def run(self, spec: EvaluateSpec, run_name: str) -> dict[str, Any]:
        from .evaluate import evaluate

        return evaluate(spec, run_name)

    def demand(self, spec: EvaluateSpec) -> Demand:
        return spec.resources.demand()

    def check_inputs(self, spec: EvaluateSpec, upcoming: Upcoming) -> None:
        from ..data.manifest import require_dataset

        require_dataset(spec.dataset, upcoming)

    def dry_run(self, spec: EvaluateSpec, upcoming: Upcoming) -> list[Line]:
        from ..data.dry_run import dataset_lines
        from ..registry.dry_run import model_lines

        _, classes, lines = dataset_lines(spec.dataset, (spec.split,), upcoming)
        return model_lines(spec.model, spec.registry, upcoming, classes, spec.dataset) + lines


KIND = Evaluate()
