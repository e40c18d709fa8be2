"""The Ray under a job: one started in this process and kept to this machine, or the cluster's."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every line that a worker prints appears twice
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # else a short epoch waits up to 2 s for its report to be fetched
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "0",
}
"""Set before Ray is imported, where the user has not set them."""

LAUNCHER_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""What `ray up` leaves on a head node: the kinds of nodes that its autoscaler may add."""

MAX_OBJECT_STORE_BYTES = 2 << 30
SMALL_OBJECT_STORE_BYTES = 256 << 20


@contextmanager
def start_ray(address: str | None = None, verbose: bool = False) -> Iterator[None]:
    """Ray while the block runs: a private one on this machine, or (``address="auto"``) the one this process is in.

    The private one has its own token and temporary directory, no dashboard and a bounded object store. Its
    logs are kept only if the block fails. ``verbose`` shows what the workers print.
    """
    os.environ.update({key: value for key, value in LOCAL_ENVIRONMENT.items() if key not in os.environ})
    if address is not None:
        import ray

        ray.init(address=address, log_to_driver=True, logging_level="info" if verbose else "warning")
        try:
            yield
        finally:
            ray.shutdown()
        return
    os.environ.pop("RAY_ADDRESS", None)  # else Ray would join that cluster; --address is the way to it
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), PYTHONPATH=_python_path())
    directory = tempfile.mkdtemp(prefix="yolov7-ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
    import ray

    done = False
    try:
        ray.init(address="local", include_dashboard=False, object_store_memory=_object_store_bytes(),
                 _temp_dir=directory, log_to_driver=verbose, logging_level="info" if verbose else "error")
        yield
        done = True
    finally:
        ray.shutdown()
        if done:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            print(f"Ray's logs are kept in {directory}", flush=True)


def nodes() -> list[dict[str, float]]:
    """The resources of every node that is alive or that the autoscaler may add."""
    import ray

    alive = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return alive + _nodes_to_come()


def _nodes_to_come() -> list[dict[str, float]]:
    """Nodes that the cluster launcher's autoscaler may add to this cluster; none where there is no launcher."""
    path = LAUNCHER_CONFIG.expanduser()
    if not path.is_file():
        return []
    config = yaml.safe_load(path.read_text())
    limit = int(config.get("max_workers", 0))
    kinds = config.get("available_node_types", {})
    return [dict(kind.get("resources", {})) for name, kind in kinds.items() if name != config.get("head_node_type")
            for _ in range(min(limit, int(kind.get("max_workers", limit))))]


def total(amounts: list[dict[str, float]]) -> dict[str, float]:
    """CPUs and GPUs of some nodes together."""
    return {key: sum(node.get(key, 0) for node in amounts) for key in ("CPU", "GPU")}


def _python_path() -> str:
    """Where Ray's worker processes find this code if it is not installed."""
    import yolov7

    roots = [str(Path(file).resolve().parents[1]) for file in (yolov7.__file__, __file__)]
    roots = [root for root in roots if not root.endswith("-packages")]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(filter(None, roots + given)))


def _object_store_bytes() -> int:
    """Half of what /dev/shm has free, within bounds; small where it is absent, as in a bare container."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        free = 0
    return max(SMALL_OBJECT_STORE_BYTES, min(MAX_OBJECT_STORE_BYTES, free // 2))
