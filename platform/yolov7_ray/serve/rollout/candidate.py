"""A candidate runs beside the stable version, in an application of its own that has no route."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ray import serve as ray_serve

from ...cluster.jobs_api import CANDIDATE
from ..served import ServedInfo

LOGGING = {"log_level": "WARNING", "enable_access_log": False}


@dataclass(frozen=True)
class Recipe:
    """How a served model is deployed, whatever its version."""

    options: Mapping[str, Any]
    """Of the deployment."""
    arguments: tuple
    """Of the replica, behind the model's source and description."""

    def bind(self, source, info: ServedInfo, **options: Any) -> ray_serve.Application:
        """The deployment of one version."""
        from ..replica import DetectorReplica  # and so PyTorch, which a controller does not need until then

        return DetectorReplica.options(**self.options | options).bind(source, info, *self.arguments)

    def beside(self) -> dict[str, Any]:
        """Other options for a candidate: as many replicas as its share of the load needs."""
        scaling = self.options.get("autoscaling_config", {})
        most = scaling.get("max_replicas") or self.options["num_replicas"]
        if most == 1:
            return {"num_replicas": 1, "autoscaling_config": None}
        return {"num_replicas": None, "autoscaling_config": {
            "min_replicas": 1, "max_replicas": most,
            "target_ongoing_requests": scaling.get("target_ongoing_requests", 2)}}


def application_of(model: str) -> str:
    """Ray Serve's application that holds a model's candidate."""
    return f"{CANDIDATE}{model}"


def start(recipe: Recipe, info: ServedInfo, ref: str) -> None:
    """Deploy version `ref` beside the model `info`, without waiting."""
    from ...registry.model_source import locate

    bound = recipe.bind(locate(ref, info.registry), replace(info, endpoint=None), **recipe.beside())
    ray_serve.run_many([ray_serve.RunTarget(bound, name=application_of(info.name), route_prefix=None,
                                            logging_config=LOGGING)], wait_for_applications_running=False)


def state(model: str) -> tuple[str, str]:
    """Ray Serve's status of a candidate, empty where there is none, and what it says of it."""
    found = ray_serve.status().applications.get(application_of(model))
    if found is None:
        return "", ""
    deployments = "; ".join(relevant_line(each.message) for each in found.deployments.values() if each.message)
    return found.status.value, deployments or relevant_line(found.message)


def remove(model: str) -> None:
    """Remove a candidate, once it has answered what it holds."""
    if application_of(model) in ray_serve.status().applications:
        ray_serve.delete(application_of(model), _blocking=False)


def relevant_line(message: str) -> str:
    """The relevant line of a message of Ray Serve: the last of a traceback, else the first."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["starting"]
    return lines[-1 if any("Traceback" in line or line.startswith("File ") for line in lines) else 0]
