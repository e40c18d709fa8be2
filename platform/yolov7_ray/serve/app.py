"""The Serve application: a gateway and one deployment per model; deployed, probed, and shut down again."""

import secrets
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from ray import serve as ray_serve
from ray.exceptions import ActorDiedError, RayError
from ray.serve.config import BackpressureConfig
from ray.serve.context import _get_global_client  # the only way to get the address of a running Serve
from ray.serve.exceptions import RayServeException

from .. import storage
from ..cluster.jobs_api import CANDIDATE, CONTROLLER, ENDPOINT
from ..errors import JobError
from ..registry.model_source import ModelSource, locate
from ..registry.registry import REF
from .access.spec import Token, sha256_of
from .access.tokens import Tokens
from .capture.spec import Capture
from .gateway import RETRY_AFTER_S, Gateway
from .ingress.retry import ENVIRONMENT
from .limits import Limits
from .protocols.open_inference.grpc_service import add_servicer
from .probe import ProbeImage
from .rollout.candidate import LOGGING, Recipe, relevant_line
from .rollout.controller import RollOutController
from .rollout.record import Records
from .served import ServedInfo, Settings
from .spec import WILDCARDS, Autoscaling, ServedModel, ServeSpec, tokens_of

READY_TIMEOUT_S = 900
"""How long nodes may take to start and models to load."""

REQUEST_TIMEOUT_S = 120
"""Timeout of a request, and so of a replaced replica that finishes its requests."""

MAX_CONNECTIONS = 4096
"""Requests that Ray Serve passes to a gateway at a time, slow uploads included; it refuses more in plain text."""

PROBE = "(probe)"
"""Name of the probe's own token; none of a job can be called so."""

LOOK_EVERY_S = 5.0
"""How often a job that waits looks whether its endpoint is still there."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(spec: ServeSpec, run_name: str) -> dict[str, Any]:
    """Deploy, wait until ready, probe, and, with spec.wait, serve until interrupted. Returns the url.

    JobError for invalid models, token or probe before anything is deployed. What this job started is shut down if it
    is interrupted or fails; with `wait: false` it keeps running.
    """
    probe_token = secrets.token_hex(32) if spec.is_guarded else ""  # on a cluster only the others' digests are known
    application = _application(spec, {PROBE: Token(sha256=sha256_of(probe_token))} if probe_token else {})
    probe = ProbeImage.of(spec.probe) if spec.probe else None
    started_here, url = _start_serve(spec)
    keep = False
    try:
        _deploy(application)
        _wait_until_ready(url)
        print(f"serve: ready at {url} (web page; API at {url}/docs){_reach(spec.host)}")
        if probe is not None:
            probe.run(url, probe_token)
        if spec.wait:
            print(f"serve: try it:  {_curl(spec, url)}\nserve: Ctrl-C stops it")
            _wait_for_end()
        keep = not spec.wait
    finally:
        if not keep:
            print("serve: shutting down")
            ray_serve.shutdown() if started_here else _delete()
    return {"url": url}


def build_app(spec: ServeSpec) -> ray_serve.Application:
    """The application of a serve job, also as `import_path` of a Serve config file.

    Registry names are resolved here, so that all replicas serve the same version. JobError if a model
    or the token is missing, or an image size does not fit.
    """
    return _application(spec)


def _application(spec: ServeSpec, more_tokens: Mapping[str, Token] = {}) -> ray_serve.Application:
    tokens = Tokens(tokens_of(spec) | more_tokens, spec.tokens_uri and storage.absolute(spec.tokens_uri))
    tokens.read()
    infos, recipes, replicas, max_in_flight = [], [], [], []
    for name, served in spec.models.items():
        source, chosen, numbers = locate(served.model, spec.registry), spec.of(served), spec.autoscaling[name]
        source = replace(source, uri=storage.absolute(source.uri))
        info = _inspect(name, chosen, source, spec)
        infos.append(info)
        capacity = spec.max_queued_requests + 2 * chosen.max_batch_size * numbers.max
        max_in_flight.append(-(-capacity // spec.num_gateways))  # of each gateway
        recipes.append(Recipe({
            "name": f"detector-{name}", **_number_of_replicas(numbers),
            "max_ongoing_requests": 2 * spec.num_gateways * max_in_flight[-1],  # never full: gateways bound what comes
            "graceful_shutdown_timeout_s": REQUEST_TIMEOUT_S,
            "ray_actor_options": {"num_cpus": spec.cpus_per_replica, "num_gpus": spec.gpus_per_replica},
        }, (chosen.image_size_px, spec.cpus_per_replica, chosen.max_batch_size, spec.batch_wait_ms / 1000,
            chosen.engine, chosen.precision, spec.reduced_decoding, bool(chosen.follow))))
        replicas.append(recipes[-1].bind(source, info))
    limits = Limits(max_bytes=int(spec.max_request_mb * 1e6), max_pixels=int(spec.max_image_megapixels * 1e6))
    settings = Settings(limits, spec.access_log, tokens, _writable(spec.capture))
    return Gateway.options(
        num_replicas=spec.num_gateways,
        max_ongoing_requests=MAX_CONNECTIONS,
        max_queued_requests=MAX_CONNECTIONS,
        graceful_shutdown_timeout_s=REQUEST_TIMEOUT_S,
        backpressure_config=BackpressureConfig(retry_after_s=RETRY_AFTER_S),
        ray_actor_options={"num_cpus": 0},
    ).bind(infos, settings, max_in_flight, _controller(spec, infos, recipes, replicas), *replicas)


def _controller(spec: ServeSpec, infos: list[ServedInfo], recipes: list[Recipe],
                replicas: list[ray_serve.Application]) -> ray_serve.Application | None:
    """The controller of roll-outs, where there is a registry that keeps their state."""
    if spec.registry is None:
        return None
    records = Records(storage.absolute(spec.registry), spec.endpoint)
    options = {"num_cpus": 0}
    return RollOutController.options(name=CONTROLLER, ray_actor_options=options).bind(records, infos, recipes, *replicas)


def _writable(capture: Capture | None) -> Capture | None:
    """With an absolute uri; StorageError if nothing can be written there."""
    if capture is None:
        return None
    storage.check_access(capture.uri, write=True)
    return capture.model_copy(update={"uri": storage.absolute(capture.uri)})


def _number_of_replicas(numbers: Autoscaling) -> dict[str, Any]:
    """Options of a deployment."""
    if numbers.min == numbers.max:
        return {"num_replicas": numbers.min}
    return {"autoscaling_config": {"min_replicas": numbers.min, "max_replicas": numbers.max,
                                   "target_ongoing_requests": numbers.target_queue}}


def _inspect(name: str, served: ServedModel, source: ModelSource, spec: ServeSpec) -> ServedInfo:
    """Load the model once here, so that its errors are found before anything is deployed."""
    loaded = source.load()
    size_px, stride = served.image_size_px or loaded.image_size_px, max(loaded.model.strides)
    if size_px % stride:
        raise JobError(f"models.{name}.image_size_px", f"{size_px} is not a multiple of the model's largest stride",
                       f"give a multiple of {stride}")
    if served.follow and (":" in served.model or not REF.fullmatch(served.model)):
        raise JobError(f"models.{name}.follow", f"{served.model} is one exact model and never another one",
                       "give NAME or NAME@ALIAS, or leave follow out")
    asked = ServedInfo(name, confidence=served.confidence_threshold, iou=served.iou_threshold, asked=served.model,
                       registry=spec.registry and storage.absolute(spec.registry),
                       endpoint=spec.endpoint if REF.fullmatch(source.ref) and not served.follow else None)
    return asked.of(source.ref, loaded.model.architecture.name, size_px, loaded.classes)


def _start_serve(spec: ServeSpec) -> tuple[bool, str]:
    """Start Serve unless it runs already. Returns whether it was started here, and the endpoint's local URL."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        host, port = client.http_config.host, client.http_config.port
        if spec.host != host or spec.port not in (0, port):
            raise JobError(f"{spec.host}:{spec.port}",
                           f"cannot be listened on: Ray Serve already listens at {host}:{port} on this cluster",
                           f"set `host: {host}` and `port: {port}` to upgrade what runs there, or remove it first by "
                           "`submit.py endpoint stop`")
        grpc = ray.get(client._controller.get_grpc_config.remote())
        if spec.grpc_port not in (None, grpc.port if grpc.grpc_servicer_functions else None):
            raise JobError(f"grpc_port: {spec.grpc_port}", "cannot be listened on: Ray Serve was started without it",
                           "remove what runs there first by `submit.py endpoint stop`")
        return False, _url(host, port)
    port = _free_port(spec.host, spec.port)
    ray_serve.start(http_options={"host": spec.host, "port": port, "request_timeout_s": REQUEST_TIMEOUT_S},
                    grpc_options=_grpc_options(spec), logging_config=LOGGING,
                    controller_options={"runtime_env": {"env_vars": ENVIRONMENT}})
    return True, _url(spec.host, port)


def _grpc_options(spec: ServeSpec) -> dict[str, Any] | None:
    """Without reflection, which would answer without a token."""
    if spec.grpc_port is None:
        return None
    return {"port": _free_port("0.0.0.0", spec.grpc_port), "request_timeout_s": REQUEST_TIMEOUT_S,
            "grpc_servicer_functions": [f"{add_servicer.__module__}.add_servicer"], "enable_reflection": False}


def _free_port(host: str, port: int) -> int:
    """`port`, or any free one for 0; JobError if it is not available."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise JobError(f"{host}:{port}", f"cannot be listened on ({error.strerror})",
                           "set `port: 0` for a free port, or another host and port") from error
        return probe.getsockname()[1]


def _url(host: str, port: int) -> str:
    """The endpoint's URL; where it listens at every address, that of the head node, which serves HTTP."""
    host = _head_ip() if host in WILDCARDS else host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _head_ip() -> str:
    return next(node["NodeManagerAddress"] for node in ray.nodes()
                if node["Alive"] and "node:__internal_head__" in node["Resources"])


def _reach(host: str) -> str:
    """A remark on an endpoint that only the head node of a cluster of several machines reaches."""
    if host not in LOOPBACK or _head_ip() in LOOPBACK:
        return ""
    return f"; only from the machine {_head_ip()} itself: set `host: 0.0.0.0` and a token to open it"


def _deploy(application: ray_serve.Application) -> None:
    """Deploy and wait until all replicas are up; JobError with Serve's message if they fail."""
    target = ray_serve.RunTarget(application, name=ENDPOINT, route_prefix="/", logging_config=LOGGING)
    ray_serve.run_many([target], wait_for_applications_running=False)
    deadline, next_message = time.monotonic() + READY_TIMEOUT_S, time.monotonic() + 30
    while (status := ray_serve.status().applications[ENDPOINT]).status != "RUNNING":
        deployments = "; ".join(f"{name} {deployment.status.value}: {relevant_line(deployment.message)}"
                                for name, deployment in status.deployments.items() if deployment.status != "HEALTHY")
        if status.status in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise JobError("serve", f"the application cannot start ({deployments or status.message})",
                           "the logs of Ray Serve hold the whole story")
        if time.monotonic() > deadline:
            raise JobError("serve", f"is not up after {READY_TIMEOUT_S} s ({deployments})",
                           "see whether the cluster has the CPUs and GPUs that the replicas ask for")
        if time.monotonic() > next_message:
            print(f"serve: waiting for {deployments}")
            next_message += 30
        time.sleep(0.2)


def _delete() -> None:
    """Remove the endpoint, and candidates of its models."""
    for name in ray_serve.status().applications:
        if name == ENDPOINT or name.startswith(CANDIDATE):
            ray_serve.delete(name)


def _wait_until_ready(url: str) -> None:
    """Poll /readyz over HTTP until every model has completed a real inference."""
    deadline, answer = time.monotonic() + READY_TIMEOUT_S, ""
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=10):
                return
        except (urllib.error.URLError, OSError) as error:
            answer = str(error)
        time.sleep(0.2)
    raise JobError(url, f"is not ready after {READY_TIMEOUT_S} s ({answer})",
                   "the logs of Ray Serve hold the whole story")


def _curl(spec: ServeSpec, url: str) -> str:
    token = f'-H "Authorization: Bearer ${spec.token_env or "TOKEN"}" ' if spec.is_guarded else ""
    return f"curl {token}-F file=@image.jpg {url}/v1/detect"


def _wait_for_end() -> None:
    """Return at SIGINT or SIGTERM, or when the endpoint was removed by another command."""
    interrupted = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: interrupted.set()) for number in signals]
    try:
        while not interrupted.wait(LOOK_EVERY_S) and _is_deployed():
            pass
    finally:
        for number, handler in zip(signals, before):
            signal.signal(number, handler)


def _is_deployed() -> bool:
    """Whether the endpoint is still there; an answer that does not come says nothing."""
    try:
        return ENDPOINT in ray_serve.status().applications
    except (RayServeException, ActorDiedError):  # Ray Serve was shut down
        return False
    except RayError:  # its controller is being replaced
        return True
