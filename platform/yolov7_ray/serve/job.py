"""The serve job."""

from typing import Any

from ..cluster.resources import Demand, plural
from ..errors import JobError
from ..jobs.kind import JobKind, Line, Upcoming
from ..registry.job import serve_command
from .spec import ServeSpec, with_digests


class Serve(JobKind[ServeSpec]):
    """Registered models -> an HTTP endpoint."""

    spec = ServeSpec
    outputs = {"url": "URL"}
    example = {"models": {"detector": {"model": "detector@latest"}}, "registry": "registry"}
    stays_up = True

    def run(self, spec: ServeSpec, run_name: str) -> dict[str, Any]:
        from .app import serve

        return serve(spec, run_name)

    def sent(self, spec: ServeSpec) -> ServeSpec:
        """With the digests of tokens, whose variables a cluster's nodes do not have."""
        return with_digests(spec)

    def demand(self, spec: ServeSpec) -> Demand:
        if not isinstance(spec.models, dict):  # those of a step of the pipeline; their number is not known yet
            numbers = spec.range_of(spec.replicas)
            return Demand(numbers.min, spec.cpus_per_replica, spec.gpus_per_replica,
                          f"each model of {plural(numbers.min, 'replica')}", "replicas", "cpus_per_replica",
                          "gpus_per_replica")
        counts = [found.min for found in spec.autoscaling.values()]  # more are started when they fit
        each = plural(counts[0], "replica") if len(set(counts)) == 1 else f"{plural(sum(counts), 'replica')} in all"
        return Demand(sum(counts), spec.cpus_per_replica, spec.gpus_per_replica,
                      f"{plural(len(counts), 'model')} of {each}", "replicas", "cpus_per_replica", "gpus_per_replica")

    def check_inputs(self, spec: ServeSpec, upcoming: Upcoming) -> None:
        from ..data.manifest import require_dataset

        if isinstance(spec.models, str) and not upcoming.makes(spec.models):
            raise JobError(f"models: {spec.models}", "refers to a step, and this is no step of a pipeline",
                           "give a section of names, each with model")
        if spec.probe is not None:
            require_dataset(spec.probe.dataset, upcoming)

    def dry_run(self, spec: ServeSpec, upcoming: Upcoming) -> list[Line]:
        from ..data.dry_run import dataset_lines
        from ..registry.dry_run import model_lines

        models = [served.model for served in spec.models.values()] if isinstance(spec.models, dict) else [spec.models]
        lines = [line for model in models for line in model_lines(model, spec.registry, upcoming)]
        if spec.probe:
            lines += dataset_lines(spec.probe.dataset, (spec.probe.split,), upcoming)[2]
        authentication = "bearer token" if spec.is_guarded else "no"
        return [*lines, ("endpoint", f"http://{spec.host}:{spec.port}, {authentication} authentication")]

    def next_command(self, spec: ServeSpec, outputs: dict[str, Any]) -> str:
        models = {name: served.model for name, served in spec.models.items()}
        return f"{serve_command(models, spec.registry)} keeps an endpoint up"


KIND = Serve()
