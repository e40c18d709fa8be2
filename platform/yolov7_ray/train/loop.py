"""Training loop of one worker: build and restore, then fit, validate and save each epoch. Every rank runs it."""

import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from ray.actor import ActorHandle

from yolov7.evaluation.metrics import Metrics
from yolov7.images.batch import Batch
from yolov7.model.describe import count_flops, count_parameters
from yolov7.training.engine import Diverged, resolve_precision, train_one_epoch
from yolov7.training.stage_clock import Clock
from yolov7.training.state import TrainState

from .. import storage
from ..data.reading.chosen import ChosenSamples
from ..data.reading.dataset import ArrowDataset, open_splits, train_loader
from ..data.reading.order import class_weights, image_weights, rank_share
from ..errors import StorageError
from ..evaluate.rank_share import Share, Worker, evaluate_share, figures, gather, merged, share, synchronize
from .build import build_criterion, build_state, wrap
from .checkpoint_policy import CheckpointPolicy
from .checkpoints import Checkpoints
from .progress import Reporter
from .report import RunLog, best_row
from .spec import TrainSpec
from .starting_point import dataset_of
from .faults.watchdog import StorageWaits, Watchdog

CLASS_AP = "class_ap"
"""Key of an epoch's row: AP of each class, None if the validation split has no object of it."""
MAX_ROLLBACKS = 3
"""How often a run rolls back with half the learning rate before it fails."""


def train_loop(config: dict) -> dict:
    """Train on this worker of Ray Train and return the last row of metrics; ``config``: arguments of `train_to`."""
    spec = TrainSpec.model_validate(config["spec"])
    return train_to(spec.epochs, spec, current_worker(spec), config["run"], config["progress_actor"])


def train_to(epoch: int, spec: TrainSpec, worker: Worker, run: str, progress_actor: ActorHandle,
             label: str = "", origin: str | None = None, keep: str | None = None) -> dict:
    """Train the run from its newest checkpoint to the end of ``epoch``; that epoch's row of metrics, by class too.

    Every rank calls this, within a process group if there are several. ``label`` prefixes the lines of progress.
    ``origin``: URI of a checkpoint of another run, from which this one goes on if it has none. ``keep``: name of a
    checkpoint that is not removed meanwhile.
    The state is in storage then, and a later call goes on from it as if there had been no pause.
    """
    os.environ[storage.PATIENCE] = str(60 * spec.storage_patience_minutes)
    reporter = Reporter(progress_actor, worker.rank, label, spec.epochs, spec.batch_size)
    waits = StorageWaits(reporter, 60 * spec.storage_patience_minutes)
    with Watchdog(spec.resources.hang_timeout_s, reporter.log_hang, waits) as watchdog:
        part = TrainingRun(spec, run, worker, reporter, watchdog, epoch, origin, keep)
        part.restore()
        reporter.log("waiting for the first step")
        part.train()
        part.finish()
    history = part.state.history
    row = next((row for row in history if row["epoch"] == epoch), history[-1])
    return row | part.cost | class_figures(part.metrics)


class TrainingRun:
    """One worker's part in a run."""

    def __init__(self, spec: TrainSpec, run: str, worker: Worker, reporter: Reporter, watchdog: Watchdog,
                 last_epoch: int, origin: str | None = None, keep: str | None = None) -> None:
        """``last_epoch``: after it the run ends, or pauses."""
        self.spec, self.worker, self.reporter, self.watchdog = spec, worker, reporter, watchdog
        self.last_epoch, self.origin = last_epoch, origin
        reporter.log(f"waiting for the dataset {spec.dataset}")
        dataset = dataset_of(spec, run)
        train_set, self.val_set = open_splits(dataset, spec.data, spec.data.train_split, spec.data.val_split)
        if (num_chosen := spec.data.num_chosen(len(train_set))) < len(train_set):
            train_set = ChosenSamples(train_set, num_chosen)
        self.state = build_state(spec, train_set, worker.device)
        self.network = wrap(self.state.model, spec)
        self.criterion = build_criterion(spec, self.state.model, train_set).to(worker.device)
        self.batch_clock = Clock()
        self.batches = EpochBatches(spec, train_set, worker, self.batch_clock)
        if self.batches.node_of_part is not None:
            reporter.log(reading_share(spec, train_set, self.batches.node_of_part))
        self.reporter.steps_per_epoch = self.state.schedule.steps_per_epoch
        self.checkpoints = Checkpoints(run, spec.checkpoint.keep_best, self.reporter.log,
                                       self.reporter.checkpoint_written, keep)
        self.checkpoint_policy = self.log = None
        if worker.rank == 0:
            self.checkpoint_policy = CheckpointPolicy(spec, self.state, self.checkpoints, self.reporter)
            self.log = RunLog(run, spec, train_set, self.val_set, worker, self.reporter.log)
        self.cost = {"parameters": count_parameters(self.state.model), "gflops": count_flops(
            self.state.model.architecture, spec.data.image_size_px, self.state.model.num_classes) / 1e9}
        self.last_good = 0
        self.validated = False
        self.metrics: Metrics | None = None
        self.share: Share | None = None

    def restore(self) -> None:
        """Load the newest complete checkpoint, the same on every rank; a new run first tries whether it can save."""
        name = self._restore_all_ranks(self.checkpoints, self.checkpoints.restore) or self._restore_origin()
        if name is not None:
            within = f", step {self.state.step}" if self.state.step else ""
            self.reporter.log(f"resumed after epoch {self.state.epoch}{within}")
        elif self.checkpoint_policy is not None:
            self.checkpoint_policy.rehearse()
        if isinstance(self.spec.resources.workers, tuple):
            number = self.worker.world_size
            self.reporter.log(f"training on {number} worker{'s' if number > 1 else ''}")

    def _restore_origin(self) -> str | None:
        """Load the checkpoint of another run from which this one goes on, if there is one; its name."""
        if self.origin is None:
            return None
        run, _, name = self.origin.rpartition("/")
        checkpoints = Checkpoints(run, 1, self.reporter.log)
        return self._restore_all_ranks(checkpoints, lambda state: checkpoints.restore(state, name))

    def _restore_all_ranks(self, checkpoints: Checkpoints, choose: Callable[[TrainState], str | None]) -> str | None:
        """Load the one of these checkpoints that rank 0 chooses and loads by ``choose``; its name."""
        state, worker = self.state, self.worker
        name = share(choose(state) if worker.rank == 0 else None, worker)
        if name is not None and worker.rank != 0:
            checkpoints.restore(state, name)
        return name

    def train(self) -> None:
        """Train to the last epoch, or until it stops early."""
        while self.state.epoch < self.last_epoch and not self.stops_early:
            try:
                self.epoch()
            except Diverged as error:
                self.roll_back(error)

    def epoch(self) -> None:
        """Train the rest of an epoch, validate, save."""
        spec, state, clock = self.spec, self.state, Clock()
        row = self.fit(clock)
        self.validated = state.epoch == self.last_epoch or state.epoch % spec.evaluation.every_epochs == 0
        if self.validated:
            self.metrics = self.validate(clock)
            row |= share(scores(self.metrics, spec), self.worker)
        row["seconds"] = clock.seconds | {f"fetch/{stage}": spent for stage, spent in self.batch_clock.seconds.items()}
        state.history.append(row)
        last = state.epoch == self.last_epoch or self.stops_early
        if self.checkpoint_policy is not None:
            with clock("save"):
                self.checkpoint_policy.after_epoch(self.cost | scalars(row), row.get(spec.checkpoint.best_by), last)
            if not last:
                with clock("report"):
                    self.write_log()
        row["seconds"] |= clock.seconds
        self.reporter.epoch(row)

    @property
    def stops_early(self) -> bool:
        """Whether the last epochs have brought nothing better, as ``early_stopping_epochs`` says."""
        history, figure, most = self.state.history, self.spec.checkpoint.best_by, self.spec.early_stopping_epochs
        if most is None or not history or history[-1].get(figure) is None:  # not evaluated
            return False
        return history[-1]["epoch"] - best_row(history, figure)["epoch"] >= most

    def write_log(self) -> None:
        """Write the epoch's results; where that fails, the next epoch's hold them too."""
        try:
            self.log.write(self.state, self.metrics if self.validated else None, self.share, self.cost, self.checkpoints.complete)
        except StorageError as error:
            self.reporter.log(f"results could not be written ({error}); training goes on")

    def fit(self, clock: Clock) -> dict:
        """Train to the end of the epoch; return its history row, without the evaluation."""
        state, start, images = self.state, time.perf_counter(), self.state.totals[-1].item()
        self.reporter.start_epoch(state.step)
        self.batch_clock.seconds.clear()
        epoch = state.epoch

        def on_step(shares: dict[str, float]) -> None:
            self.watchdog.feed()
            self.reporter.step(epoch, state.step, shares, self.batch_clock.shares(), state.mean_losses)

        def on_update() -> None:
            if not state.skipped_in_a_row:
                self.last_good = state.position
            if self.checkpoint_policy is not None:
                with clock("save"):
                    self.checkpoint_policy.after_update()

        steps = self.batches(state)
        if self.log is not None and state.position == 0:
            steps = self.log.first_drawn(steps)
        means = train_one_epoch(
            state, steps, self.criterion, network=self.network, precision=self.worker.precision,
            clock=clock, on_step=on_step, on_update=on_update)
        row = {"epoch": state.epoch} | means
        row["images_per_s"] = (row["num_images"] - images) / (time.perf_counter() - start)
        return row

    def validate(self, clock: Clock) -> Metrics | None:
        """Evaluate the moving average on this rank's share of the split; rank 0 returns the metrics of all ranks."""
        synchronize(self.state)
        self.reporter.phase("evaluating")
        self.share = evaluate_share(
            self.state.ema.model, self.val_set, self.spec.evaluation, self.worker, clock=clock,
            on_batch=lambda batch, found: self.watchdog.feed(),
            size_px=self.spec.data.image_size_px, batch_size=self.spec.images_per_part)
        with clock("evaluate/score"):
            return merged(self.share, self.worker)

    def roll_back(self, error: Diverged) -> None:
        """Roll back to the last good checkpoint with half the learning rate; later ones are removed.

        What counts over the run, the number of skipped updates, stays; what is of the row of bad ones does not.
        """
        factor = self.state.learning_rate_factor / 2
        if factor < 0.5 ** MAX_ROLLBACKS:
            raise FloatingPointError(f"{error}, after {MAX_ROLLBACKS} returns to an earlier checkpoint; "
                                     "lower optimizer.learning_rate or lengthen optimizer.warmup_epochs") from error
        if self.worker.rank == 0:
            self.checkpoints.wait(fatal=False)
        skipped = self.state.skipped_updates
        name = self._restore_all_ranks(self.checkpoints, lambda state: self.checkpoints.restore_good(
            state, self.last_good)) or self._restore_origin()
        if name is None:
            raise FloatingPointError(f"{error}, before the first checkpoint; "
                                     "lower optimizer.learning_rate or lengthen optimizer.warmup_epochs") from error
        if self.worker.rank == 0:
            self.checkpoints.discard_after(name)
        self.state.learning_rate_factor, self.state.skipped_updates = factor, skipped
        self.reporter.log(f"{error}; back to {name} with {factor:g} x the learning rate")

    def finish(self) -> None:
        """Wait for the last checkpoint; write the report, also for a run that was killed before that."""
        if self.stops_early:
            self.reporter.log(f"stopped early: {self.spec.checkpoint.best_by} has not risen for "
                              f"{self.spec.early_stopping_epochs} epochs")
        if not self.validated:
            self.metrics = self.validate(Clock())
        if self.checkpoint_policy is not None:
            self.checkpoints.wait()
            self.log.write(self.state, self.metrics, self.share, self.cost, self.checkpoints.complete, last=True)


def current_worker(spec: TrainSpec) -> Worker:
    """This worker's rank, world size and device in Ray Train."""
    context = ray.train.get_context()
    return worker_on(ray.train.torch.get_device(), context.get_world_rank(), context.get_world_size(), spec)


def worker_on(device: torch.device, rank: int, world_size: int, spec: TrainSpec) -> Worker:
    """This process as a worker of a run."""
    return Worker(rank, world_size, device, spec.data.processes(spec.resources.cpus_per_worker),
                  resolve_precision(spec.precision, device), ray.get_runtime_context().get_node_id())


class EpochBatches:
    """This rank's share of every global batch of an epoch."""

    def __init__(self, spec: TrainSpec, train_set: ArrowDataset, worker: Worker, batch_clock: Clock) -> None:
        """``batch_clock`` collects the time spent on making batches, in whichever process."""
        self.spec, self.train_set, self.worker, self.batch_clock = spec, train_set, worker, batch_clock
        self.class_counts = train_set.class_counts() if spec.data.image_weights else None
        self.node_of_part = None
        if spec.data.locality == "node":
            nodes = share(gather(worker.node, worker), worker)  # not Ray's node rank, which is one per address
            self.node_of_part = nodes_of_parts(nodes, spec.resources.worker_range[1])

    def __call__(self, state: TrainState) -> Iterator[Sequence[tuple[Batch, int]]]:
        """The parts of the current epoch's remaining batches, with their numbers of images.

        An epoch is finished as it was dealt to nodes when it began, whichever nodes there are now.
        """
        spec = self.spec
        if state.step == 0:
            state.node_of_part = self.node_of_part
        steps = train_loader(
            self.train_set, size_px=spec.data.image_size_px, augment=spec.augment.at(state.epoch, spec.epochs),
            batch_size=spec.batch_size, seed=spec.seed, epoch=state.epoch, rank=self.worker.rank,
            world_size=self.worker.world_size,
            parts=spec.resources.worker_range[1], first_step=state.step, processes=self.worker.loader_processes,
            weights=self.weights(state.history), multi_scale=spec.data.multi_scale, stride_px=max(state.model.strides),
            shuffle_shards=spec.data.shuffle_shards, node_of_part=state.node_of_part,
        )
        for parts in steps:
            for part in parts:
                self.batch_clock.add(part.seconds)
            yield [(part.batch, part.num_samples) for part in parts]

    def weights(self, history: list[dict]) -> np.ndarray | None:
        """Sampling weight of each image from the last AP per class in ``history``; None: each image once."""
        if self.class_counts is None:
            return None
        ap = [row[CLASS_AP] for row in history if row.get(CLASS_AP)]
        of_class = class_weights(self.class_counts, np.array(ap[-1], np.float64) if ap else None)
        return image_weights(self.class_counts, of_class)


def nodes_of_parts(nodes: Sequence[str], parts: int) -> list[int]:
    """Number of the node that makes each part of a global batch, from the node of each rank; nodes count from 0."""
    number = {node: number for number, node in enumerate(dict.fromkeys(nodes))}
    return [number[node] for rank, node in enumerate(nodes) for _ in rank_share(np.arange(parts), rank, len(nodes))]


def reading_share(spec: TrainSpec, train_set: ArrowDataset, node_of_part: Sequence[int]) -> str:
    """How much each node reads, in words, and a warning where its cache is too small for it."""
    num_nodes = max(node_of_part) + 1
    share_gb = sum(shard.num_bytes for shard in train_set.split.shards) / num_nodes / 1e9
    note = (f", more than its data.cache_gb of {spec.data.cache_gb:g}, and fetches shards again and again: set "
            "data.shuffle_shards") if share_gb > spec.data.cache_gb and not spec.data.shuffle_shards else ""
    return f"each of {num_nodes} node{'s' if num_nodes > 1 else ''} reads {share_gb:.3g} GB an epoch{note}"


def scores(metrics: Metrics | None, spec: TrainSpec) -> dict:
    """What an evaluation adds to its epoch's row; empty on ranks without metrics."""
    if metrics is None:
        return {}
    found = figures(metrics) | metrics.operating.at_best()
    if not spec.data.image_weights:
        return found
    return found | {CLASS_AP: [of_class.ap for of_class in metrics.per_class.values()]}


def class_figures(metrics: Metrics | None) -> dict[str, float | None]:
    """``ap/CLASS`` of each class; empty on ranks without metrics."""
    return {f"ap/{name}": found.ap for name, found in metrics.per_class.items()} if metrics is not None else {}


def scalars(row: dict) -> dict[str, float]:
    """The numbers of a row, without its nested parts."""
    return {key: value for key, value in row.items() if isinstance(value, (int, float))}
