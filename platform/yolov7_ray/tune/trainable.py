"""What runs on the cluster: an actor that trains one trial after the other, to the rung that each is to reach.

Tune keeps the actor between trials (``reuse_actors``), so that imports and a group of several workers are paid once.
A trial's state is its newest checkpoint in storage alone: any actor goes on with any trial, bitwise as if it had never
paused, and a paused trial holds nothing.
"""

import gc
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import ray
import torch
import torch.distributed as dist
from ray import tune as ray_tune
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from .. import storage
from ..errors import NotFound
from ..train.loop import Worker, train_to, worker_on
from ..train.spec import TrainSpec
from ..train.starting_point import DATA_RECORD, settled
from ..train.trainer import COLLECTIVE_TIMEOUT_S
from .latency import latency
from .trial import keep_best_and_newest

JOIN_TIMEOUT_S = 300
"""How long the workers of a trial wait for each other at their start; a busy machine needs minutes."""
ASK_EVERY_S = 1.0
"""How soon a lost worker is noticed by the others of its trial."""


@dataclass(frozen=True)
class Leg:
    """A part of a trial that is trained without a pause."""

    trial: str
    job: dict
    """The trial's train job."""
    run: str
    """URI of the trial's directory."""
    to_epoch: int
    fingerprint: str
    """Of the dataset as it was when the search began: it may have grown since."""
    keep_all: bool
    """Whether no checkpoint that training keeps is removed."""
    measured_classes: int | None
    """Not to be trained: the latency of its model with so many classes is measured."""
    search: str
    """URI of the search's directory."""
    origin: str | None = None
    """URI of the checkpoint, of another trial, from which this one goes on if it has none in its directory."""
    keep: str | None = None
    """Name of a checkpoint of this trial that others may still go on from."""

    @property
    def label(self) -> str:
        return f"trial {self.trial}  "


class TrialActor(ray_tune.Trainable):
    """Rank 0 of the trials that it is given, each to the end of one leg; ``config["leg"]`` holds a `Leg`'s fields."""

    def setup(self, config: dict, progress_actor: ActorHandle) -> None:
        self._config, self._progress_actor = config, progress_actor
        self._ranks: list[ActorHandle] = []

    def reset_config(self, config: dict) -> bool:
        self._config = config
        return True

    def step(self) -> dict:
        """Train the leg: the row of metrics of its last epoch; or measure what the model costs here."""
        leg = Leg(**self._config["leg"])
        if leg.measured_classes is not None:
            job = TrainSpec.model_validate(leg.job)
            return {"done": True, "costs": latency(leg.search, job, leg.measured_classes)}
        try:
            row = self._train(leg)
            if not leg.keep_all:
                keep_best_and_newest(leg.run, *filter(None, [leg.keep]))
            return {"done": True, "row": row}
        finally:
            self._progress_actor.replaced.remote(leg.label)
            release_memory()

    def cleanup(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)
        leave_group()

    def _train(self, leg: Leg) -> dict:
        spec = begin(leg)
        workers = spec.resources.workers
        if workers == 1:
            return train_leg(leg, spec, 0, 1, self._progress_actor)
        if not self._ranks:
            self._ranks = start_ranks(spec, workers)
        others = Others([rank.train.remote(leg, spec, workers, self._progress_actor) for rank in self._ranks],
                        self._ranks)
        with others:
            return train_leg(leg, spec, 0, workers, self._progress_actor)


@ray.remote
class TrialRank:
    """Another worker of the trials of one `TrialActor`, with which it lives and ends."""

    def join(self, host: str, port: int, rank: int, workers: int, timeout_s: float) -> None:
        self.rank = rank
        join_group(dist.TCPStore(host, port, workers, timeout=timedelta(seconds=JOIN_TIMEOUT_S)), rank, workers,
                   timeout_s)

    def train(self, leg: Leg, spec: TrainSpec, workers: int, progress_actor: ActorHandle) -> None:
        try:
            train_leg(leg, spec, self.rank, workers, progress_actor)
        finally:
            release_memory()


class Others:
    """The calls that train the same leg on the other workers.

    If one fails, all of them are ended: then this worker's next exchange with them fails too, instead of waiting.
    """

    def __init__(self, calls: list[ray.ObjectRef], ranks: list[ActorHandle]) -> None:
        self._calls, self._ranks = calls, ranks
        self._error: Exception | None = None
        self._watcher = threading.Thread(target=self._watch, name="other workers", daemon=True)

    def __enter__(self) -> None:
        self._watcher.start()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._watcher.join(ASK_EVERY_S)  # was it the error of another that came first?
            self._end_all()
        self._watcher.join()
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        left = self._calls
        try:
            while left:
                done, left = ray.wait(left, timeout=ASK_EVERY_S)
                ray.get(done)
        except Exception as found:  # noqa: BLE001  (raised again in the worker's thread)
            self._error = found
            self._end_all()

    def _end_all(self) -> None:
        for rank in self._ranks:
            with suppress(RayError):
                ray.kill(rank)


def begin(leg: Leg) -> TrainSpec:
    """The trial's job with its anchors; its first leg records what it starts from."""
    anchored = leg.origin.rpartition("/")[0] if leg.origin else leg.run
    spec = settled(TrainSpec.model_validate(leg.job), anchored)
    try:
        storage.read_json(storage.join(leg.run, DATA_RECORD))
    except NotFound:
        storage.write_json(storage.join(leg.run, "spec.json"), spec.model_dump(mode="json"))
        storage.write_json(storage.join(leg.run, DATA_RECORD),
                           {"dataset": spec.dataset, "fingerprint": leg.fingerprint})
    return spec


def train_leg(leg: Leg, spec: TrainSpec, rank: int, workers: int, progress_actor: ActorHandle) -> dict:
    """Train the leg on this worker."""
    worker: Worker = worker_on(device(), rank, workers, spec)
    return train_to(leg.to_epoch, spec, worker, leg.run, progress_actor, leg.label, leg.origin, leg.keep)


def device() -> torch.device:
    """The GPU, or the part of one, that Ray lends to this process; without one the CPU."""
    return torch.device("cuda", 0) if ray.get_gpu_ids() else torch.device("cpu")


def start_ranks(spec: TrainSpec, workers: int) -> list[ActorHandle]:
    """The other workers, each in its bundle of the trial's placement group, joined with this one."""
    group, resources = get_current_placement_group(), spec.resources
    ranks = [TrialRank.options(
        num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker,
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
    ).remote() for rank in range(1, workers)]
    host, timeout_s = ray.util.get_node_ip_address(), COLLECTIVE_TIMEOUT_S + 60 * spec.storage_patience_minutes
    store = dist.TCPStore(host, 0, workers, is_master=True, wait_for_workers=False,
                          timeout=timedelta(seconds=JOIN_TIMEOUT_S))
    joined = [actor.join.remote(host, store.port, rank, workers, timeout_s) for rank, actor in enumerate(ranks, 1)]
    join_group(store, 0, workers, timeout_s)
    ray.get(joined, timeout=JOIN_TIMEOUT_S)
    return ranks


def join_group(store: dist.Store, rank: int, workers: int, timeout_s: float) -> None:
    """Make this process one of a process group: NCCL on GPUs, else gloo."""
    leave_group()
    backend = "nccl" if device().type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=workers, timeout=timedelta(seconds=timeout_s))


def leave_group() -> None:
    """Leave the process group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def release_memory() -> None:
    """Give the memory of the trial that has ended back, which the next one on this GPU needs."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
