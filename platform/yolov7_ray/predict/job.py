"""The predict job."""

from typing import Any

from .. import storage
from ..cluster.resources import Demand
from ..errors import JobError
from ..jobs.kind import JobKind, Line, Upcoming
from ..program import command
from .spec import PredictSpec


class Predict(JobKind[PredictSpec]):
    """Model x images -> detections."""

    spec = PredictSpec
    outputs = {"output": "directory"}
    example = {"model": "detector@latest", "registry": "registry", "images": "photos", "output": "predictions"}

    def run(self, spec: PredictSpec, run_name: str) -> dict[str, Any]:
        from .predict import predict

        return predict(spec, run_name)

    def demand(self, spec: PredictSpec) -> Demand:
        return spec.resources.demand()

    def next_command(self, spec: PredictSpec, outputs: dict[str, Any]) -> str:
        if spec.draw:
            registry = f" --set registry={spec.registry}" if spec.registry else ""
            return command(f"jobs/serve-detector.yaml --set models.detector.model={spec.model}{registry}")
        return command(f"jobs/predict-detector.yaml --set model={spec.model} --set images={spec.images} "
                       f"--set output={spec.output}-drawn --set draw=true")

    def dry_run(self, spec: PredictSpec, upcoming: Upcoming) -> list[Line]:
        from ..registry.dry_run import model_lines

        if not upcoming.makes(spec.images) and not storage.exists(spec.images):
            raise JobError("images", f"{spec.images} does not exist or is empty",
                           "give a directory of images or an Arrow dataset")
        return [*model_lines(spec.model, spec.registry, upcoming), ("images", spec.images), ("output", spec.output)]


KIND = Predict()
