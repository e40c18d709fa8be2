"""The Ray of a job: a private one on this machine, or the cluster's."""

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import yaml

from ..errors import JobError
from ..program import command
from . import node_watch, session_directory

LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # otherwise every line that a worker prints appears twice
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # otherwise a short epoch waits up to 2 s for its report
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # a busy machine may need more than Ray's 60 s
}
"""Environment of a private Ray, unless set by the user."""

LOOPBACK = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Environment of a private Ray and of all that talk to it: all its ports are on 127.0.0.1, on Linux too."""

START_ATTEMPTS = 3
PASSING_START_FAULTS = ("timed out during startup", "already occupied", "already in use",
                        "Failed to start the dashboard")
"""Parts of Ray's messages that a second attempt may not meet again."""

RAYLET_DEATH = "Raylet is terminated"
WORKER_DEATH = "A worker died or was killed while executing a task"
"""Starts of Ray's messages, each a paragraph."""
LAUNCHER_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Written by `ray up` on a head node: the node types that its autoscaler may add."""

MAX_OBJECT_STORE_BYTES = 2 << 30
SMALL_OBJECT_STORE_BYTES = 256 << 20


@contextmanager
def start_ray(address: str | None = None, verbose: bool = False,
              remedy: str = "start the job again") -> Iterator[None]:
    """Ray while the block runs: a private one on this machine, or (``address="auto"``) the one this process is in.

    The private one listens on 127.0.0.1 alone, with its own token, temporary directory and dashboard and a
    bounded object store. Its logs are kept only if the block fails. ``verbose`` shows what the workers print.
    If the private one breaks down, the process ends with one sentence, of which ``remedy`` is the last part.
    """
    directory = None if address else _prepare_own_ray()
    import ray

    if not verbose:  # Serve sets its own level when it starts
        logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
        _shorten_node_deaths((WORKER_DEATH, RAYLET_DEATH) if directory else (WORKER_DEATH,))

    settings = {"log_to_driver": verbose, "logging_level": "info" if verbose else "warning" if address else "error"}
    keep_logs = True
    try:
        if address:
            join(address, **settings)
        else:
            init_with_retries(dashboard_host="127.0.0.1", object_store_memory=_object_store_bytes(),
                              _temp_dir=directory, **settings)
            session_directory.announce(directory, session_directory.Reached(
                ray.get_runtime_context().gcs_address, os.environ["RAY_API_SERVER_ADDRESS"],
                os.environ.get("RAY_AUTH_TOKEN", "")))
        _exit_at_sigterm()
        with node_watch.watched(directory, remedy) if directory else nullcontext():
            yield
        keep_logs = False
    except (JobError, KeyboardInterrupt, SystemExit):
        keep_logs = False
        raise
    finally:
        ray.shutdown()
        if directory:
            os.environ.pop("RAY_API_SERVER_ADDRESS", None)
        if directory and keep_logs:
            session_directory.disown(directory)
            print(f"Ray's logs are kept in {directory}", flush=True)
        elif directory:
            shutil.rmtree(directory, ignore_errors=True)


def _shorten_node_deaths(reported: tuple[str, ...]) -> None:
    """Print the first line of Ray's message about a dead node, without the twenty log lines it appends.

    Nothing of messages that begin with one of ``reported``: jobs report such losses themselves, in a few words.
    """
    from ray._private import worker

    print_all = worker.print_to_stdstream

    def print_shortened(data: dict, **how: object) -> None:
        lines = [line.partition("\n")[0] for line in data["lines"] if not line.startswith(reported)]
        print_all(data | {"lines": lines}, **how)

    worker.print_to_stdstream = print_shortened


def join(address: str, **settings: object) -> None:
    """``ray.init`` on a cluster that runs; JobError if there is none."""
    import ray

    try:
        ray.init(address=address, **settings)
    except ConnectionError as error:
        raise JobError(f"Ray at {address}", "no cluster runs here",
                       f"{command('JOB.yaml')} starts a Ray of its own, and with --address sends the job to a cluster") \
            from error


def init_with_retries(**arguments) -> None:
    """``ray.init`` of a private Ray with a dashboard, each attempt at other ports.

    Retried if a busy machine exceeds Ray's start timeout of 30 s, and if another process was faster to take a port.
    """
    import ray

    for remaining in reversed(range(START_ATTEMPTS)):
        try:
            ray.init(address="local", dashboard_port=announce_dashboard(), **arguments)
            return
        except Exception as error:
            if not remaining or not any(sign in str(error) for sign in PASSING_START_FAULTS):
                raise
            ray.shutdown()


def announce_dashboard() -> int:
    """A free port for the dashboard, set in the environment of all Ray processes.

    Ray Train asks the dashboard whether a controller is alive. Without an answer the resources of a trial that was
    stopped early are never freed, and the next trial waits forever.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    return port


def _prepare_own_ray() -> str:
    """Set the environment that Ray reads on import; return its directory, short because of socket paths."""
    os.environ.update({key: value for key, value in LOCAL_ENVIRONMENT.items() if key not in os.environ})
    os.environ.pop("RAY_ADDRESS", None)  # otherwise Ray would join that cluster; use --address for that
    os.environ["PYTHONPATH"] = _python_path()
    if "ray" not in sys.modules:
        os.environ.update(LOOPBACK, RAY_AUTH_TOKEN=secrets.token_hex(32))
    return session_directory.create(os.environ.get("RAY_TMPDIR", "/tmp"))


def _exit_at_sigterm() -> None:
    """Exit with cleanup, so that endpoints and workers are shut down; Ray's own handler ends the process at once."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def nodes(address: str | None = None) -> list[dict[str, float]] | None:
    """Resources of every node that is alive or may be added; None if an autoscaler does not report them."""
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    alive = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    path = LAUNCHER_CONFIG.expanduser()
    if address is None:
        return alive
    if path.is_file():
        return alive + _nodes_to_come(yaml.safe_load(path.read_text()))
    return None if is_autoscaler_v2(fetch_from_server=True) else alive  # KubeRay's limits are in its own resource


def may_grow() -> bool:
    """Whether an autoscaler may add nodes to the cluster that this process is in."""
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    return LAUNCHER_CONFIG.expanduser().is_file() or is_autoscaler_v2(fetch_from_server=True)


def _nodes_to_come(config: dict) -> list[dict[str, float]]:
    """Nodes that the cluster launcher's autoscaler may add to its head."""
    limit = int(config.get("max_workers", 0))
    kinds = config.get("available_node_types", {})
    return [dict(kind.get("resources", {})) for name, kind in kinds.items() if name != config.get("head_node_type")
            for _ in range(min(limit, int(kind.get("max_workers", limit))))]


def _python_path() -> str:
    """PYTHONPATH for Ray's worker processes, in case this code is not installed."""
    import yolov7
    import yolov7_ray

    roots = [str(Path(package.__file__).resolve().parents[1]) for package in (yolov7, yolov7_ray)]
    roots = [root for root in roots if not root.endswith("-packages")]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(filter(None, roots + given)))


def _object_store_bytes() -> int:
    """Half of the free space of /dev/shm, within bounds; small if it is absent, as in a bare container."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        free = 0
    return max(SMALL_OBJECT_STORE_BYTES, min(MAX_OBJECT_STORE_BYTES, free // 2))
