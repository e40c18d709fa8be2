"""Train spec -> ray.train.torch.TorchTrainer."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TypeVar

import ray.train
from ray import PlacementGroupID
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import list_placement_groups
from ray.util.state.exception import RayStateApiException

from .. import storage
from ..data.manifest import Manifest, load_manifest
from ..data.reading.shard_windows import check_cache_size
from ..errors import JobError
from .faults.failures import Failures, StopOnFailure, explain
from .loop import train_loop
from .faults.node_changes import NODE_POLL_S, NodeCountRefresh, SaveBeforeChange
from .outcome.table import run_table
from .progress import printed_progress
from .spec import TrainSpec
from .starting_point import check_resumed, count_matching_tensors, record_start, settled, starting_model

T = TypeVar("T")
GATHER_TIMEOUT_S = 5
"""How long an elastic run that lost workers waits for as many as before until it continues with fewer."""
COLLECTIVE_TIMEOUT_S = 1800
"""How long a rank waits for another, beyond the time for which that one may wait for storage."""
STATE_TIMEOUT_S = 30
"""How long Ray's state is asked for."""


def train(spec: TrainSpec, run_name: str) -> dict:
    """Train under ``<storage>/<run_name>``, resuming from its last checkpoint if it has one."""
    run = storage.join(spec.storage, run_name)
    manifest = check_run(spec, run)
    spec = settled(spec, run, lambda line: print(line, flush=True))
    record_start(spec, run, manifest)
    gather_timeout_s = GATHER_TIMEOUT_S if elastic(spec) else None
    with (printed_progress(bars=True) as progress_actor,
          environment_variables(**{"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": gather_timeout_s,
                                   storage.PATIENCE: 60 * spec.storage_patience_minutes})):
        print(f"waiting for {spec.resources.demand().what}", flush=True)
        fit(spec, run_name, progress_actor)
        results = storage.read_json(storage.join(run, "results.json"))
    print("\n".join(run_table(results)), flush=True)
    leading = {key: results["best"][key] for key in ("epoch", "ap", "ap50", "ap75") if key in results["best"]}
    return {"run": run, "checkpoint": storage.join(run, results["best_checkpoint"]), "best": leading | results["best"],
            "report": storage.join(run, "report", "index.html")}


def fit(spec: TrainSpec, run_name: str, progress_actor: ActorHandle) -> None:
    """Train to the end; a controller that is lost is replaced, as a lost worker is. JobError: what to do instead."""
    run = storage.join(spec.storage, run_name)
    failures = Failures(progress_actor, run, spec.resources.max_failures)
    while True:
        try:
            run_in_thread(build_trainer(spec, run_name, progress_actor).fit)
            return
        except ray.train.TrainingFailedError as error:
            raise explain(error, run) from error
        except RayActorError:
            if not failures.add():
                raise JobError(f"run {run}", f"Ray's controller of the training was lost {failures.in_a_row} times "
                               "without progress", f"--resume {run_name} goes on from the last checkpoint") from None
        progress_actor.write.remote("the training's controller was lost; going on from the last checkpoint")
        remove_placement_groups()


def remove_placement_groups() -> None:
    """Free what a lost controller had reserved, in case that its cleaner was lost with it; nobody else would."""
    job = ray.get_runtime_context().get_job_id()
    with suppress(RayStateApiException, RayError):
        for group in list_placement_groups(filters=[("creator_job_id", "=", job)], timeout=STATE_TIMEOUT_S):
            if group.state != "REMOVED":
                remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group.placement_group_id))))


def build_trainer(spec: TrainSpec, run_name: str, progress_actor: ActorHandle) -> TorchTrainer:
    """The trainer that runs ``train_loop`` on every worker."""
    spec = settled(spec, storage.join(spec.storage, run_name))
    path, filesystem = storage.ray_storage(spec.storage)
    resources, run = spec.resources, storage.join(spec.storage, run_name)
    per_worker = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    return TorchTrainer(
        train_loop,
        train_loop_config={"spec": spec.model_dump(mode="json"), "run": run, "progress_actor": progress_actor},
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S + round(60 * spec.storage_patience_minutes)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.gpus_per_worker > 0, resources_per_worker=per_worker,
            elastic_resize_monitor_interval_s=NODE_POLL_S),
        run_config=ray.train.RunConfig(
            name=run_name, storage_path=path, storage_filesystem=filesystem,
            callbacks=[StopOnFailure(progress_actor, run, resources.max_failures),
                       SaveBeforeChange(progress_actor), *([NodeCountRefresh()] if elastic(spec) else [])],
            failure_config=ray.train.FailureConfig(max_failures=-1),  # StopOnFailure limits failures without progress
        ),
    )


def elastic(spec: TrainSpec) -> bool:
    """Whether the number of workers follows the size of the cluster."""
    return isinstance(spec.resources.workers, tuple)


@contextmanager
def environment_variables(**values: object) -> Iterator[None]:
    """Set environment variables while the block runs; None leaves a variable unchanged."""
    before = {name: os.environ.get(name) for name, value in values.items() if value is not None}
    os.environ.update({name: str(values[name]) for name in before})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_in_thread(work: Callable[[], T]) -> T:
    """Run ``work()`` in a thread, where Ray does not handle Ctrl-C: its handler would stop the workers unsaved."""
    outcome: Future = Future()

    def body() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            outcome.set_exception(error)

    threading.Thread(target=body, daemon=True).start()
    return outcome.result()


def check_run(spec: TrainSpec, run: str) -> Manifest:
    """The dataset's manifest; JobError, before any worker starts, if the run cannot start or go on with this job."""
    manifest = load_manifest(spec.dataset)
    for split in (spec.data.train_split, spec.data.val_split):
        if manifest.split(split).num_rows == 0:
            raise JobError(f"{spec.dataset}: split '{split}'", "has no images", "ingest some, or name another split")
    shards = manifest.split(spec.data.train_split).shards
    check_cache_size(spec.dataset, shards, spec.data.shuffle_shards, spec.data.cache_gb, spec.num_reading_nodes)
    loaded = starting_model(spec)
    if loaded is not None:
        count_matching_tensors(spec, loaded, len(manifest.classes))
    check_resumed(spec, run)
    return manifest
