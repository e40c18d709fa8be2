"""The spine: one worker's training. Build, restore; each epoch fit, validate, save; every rank alike."""

import time
from collections.abc import Iterator

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from yolov7.batch import Batch
from yolov7.clock import Clock
from yolov7.describe import count_flops, count_parameters
from yolov7.engine import resolve_precision, train_one_epoch
from yolov7.loss import Criterion
from yolov7.metrics import Metrics
from yolov7.state import TrainState

from ..data.cache import NodeCache
from ..data.dataset import ArrowDataset, train_loader
from ..data.order import class_weights, image_weights
from ..spec import Reading, TrainSpec
from .board import Reporter
from .build import build_criterion, build_state, wrap
from .checkpoint import restore, save
from .report import RunLog, Samples
from .validation import Worker, evaluate_share, figures, merged, share, synchronize

CLASS_AP = "class_ap"
"""Key of an epoch's row: AP of each class, None where the validation split has no object of it."""


def current_worker(spec: TrainSpec) -> Worker:
    """This process, as Ray Train knows it."""
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    spare = min(8, int(spec.resources.cpus_per_worker) - 1)
    processes = spec.data.loader_processes
    return Worker(context.get_world_rank(), context.get_world_size(), device,
                  max(0, spare) if processes is None else processes, resolve_precision(spec.precision, device))


def train_loop(config: dict) -> dict:
    """Train on this worker and return the last row of metrics; ``config`` holds the spec and the run's URI."""
    spec = TrainSpec.model_validate(config["spec"])
    worker = current_worker(spec)
    train_set, val_set = open_splits(spec.dataset, spec.data, spec.data.train_split, spec.data.val_split)
    state = build_state(spec, train_set, worker.device)
    restore(state)
    network = wrap(state.model, spec)
    criterion = build_criterion(spec, state.model, train_set).to(worker.device)
    batches = EpochBatches(spec, train_set, worker)
    reporter = Reporter(config["board"] if worker.rank == 0 else None, config["label"], spec.epochs,
                        state.schedule.steps_per_epoch, spec.batch_size)
    log = RunLog(config["run"], spec, train_set) if worker.rank == 0 else None
    cost = {"parameters": count_parameters(state.model),
            "gflops": count_flops(state.model.architecture, spec.data.image_size_px, state.model.num_classes) / 1e9}
    if state.epoch:
        reporter.say(f"resumed after epoch {state.epoch}")
    if state.epoch == spec.epochs:  # killed between its last checkpoint and its report
        samples = Samples(train_set.classes)
        metrics = validate(spec, state, val_set, worker, Clock(), samples)
        if log is not None:
            log.write(state, metrics, samples, cost)

    for epoch in range(state.epoch, spec.epochs):
        clock = Clock()
        row = fit(state, network, criterion, batches, worker, clock, reporter)
        last = state.epoch == spec.epochs
        metrics, samples = None, Samples(train_set.classes)
        if last or state.epoch % spec.evaluation.every_epochs == 0:
            metrics = validate(spec, state, val_set, worker, clock, samples if last else None)
            row |= share(scores(metrics, spec), worker)
        row["seconds"] = clock.seconds
        state.history.append(row)
        if last or state.epoch % spec.checkpoint.every_epochs == 0:
            with clock("save"):
                save(state, spec, {"epoch": state.epoch, "score": row.get("ap", -1.0) or 0.0} | cost | scalars(row))
        if log is not None:
            log.write(state, metrics, samples, cost)
        reporter.epoch(row)
    return state.history[-1]


def open_splits(dataset: str, data: Reading, *splits: str) -> list[ArrowDataset]:
    """The named splits, read through this node's cache."""
    cache = NodeCache(data.cache_dir, data.cache_gb * 1e9)
    return [ArrowDataset(dataset, split, cache) for split in splits]


class EpochBatches:
    """This rank's share of every global batch of an epoch."""

    def __init__(self, spec: TrainSpec, train_set: ArrowDataset, worker: Worker) -> None:
        self.spec, self.train_set, self.worker = spec, train_set, worker
        self.class_counts = train_set.class_counts() if spec.data.image_weights else None

    def __call__(self, state: TrainState) -> Iterator[tuple[Batch, int]]:
        """Those of the epoch that comes next, with their numbers of images."""
        spec = self.spec
        steps = train_loader(
            self.train_set, size_px=spec.data.image_size_px, augment=spec.augment, batch_size=spec.batch_size,
            seed=spec.seed, epoch=state.epoch, rank=self.worker.rank, world_size=self.worker.world_size,
            processes=self.worker.loader_processes, weights=self.weights(state.history),
            multi_scale=spec.data.multi_scale, stride_px=max(state.model.strides),
        )
        return ((step.batch, step.num_samples) for step in steps)

    def weights(self, history: list[dict]) -> np.ndarray | None:
        """Of each image, by the last AP per class in ``history``, which checkpoints hold; None: each image once."""
        if self.class_counts is None:
            return None
        ap = [row[CLASS_AP] for row in history if row.get(CLASS_AP)]
        of_class = class_weights(self.class_counts, np.array(ap[-1], np.float64) if ap else None)
        return image_weights(self.class_counts, of_class)


def fit(state: TrainState, network: nn.Module, criterion: Criterion, batches: EpochBatches, worker: Worker,
        clock: Clock, reporter: Reporter) -> dict:
    """Train one epoch; its row of history, without the evaluation."""
    start, epoch = time.perf_counter(), state.epoch
    reporter.start_epoch()
    means = train_one_epoch(
        state, batches(state), criterion, network=network, world_size=worker.world_size, precision=worker.precision,
        clock=clock, on_step=lambda steps, shares: reporter.step(epoch, steps, shares))
    row = {"epoch": state.epoch} | average_losses(means, worker)
    row["images_per_s"] = row["num_images"] / (time.perf_counter() - start)
    return row


def validate(spec: TrainSpec, state: TrainState, val_set: ArrowDataset, worker: Worker, clock: Clock,
             samples: Samples | None) -> Metrics | None:
    """Evaluate the average on this rank's stride of the split; rank 0 returns the metrics of all."""
    synchronize(state)
    evaluator = evaluate_share(
        state.ema.model, val_set, spec.evaluation, worker, size_px=spec.data.image_size_px,
        batch_size=-(-spec.batch_size // worker.world_size), clock=clock,
        on_batch=samples.add if samples is not None and worker.rank == 0 else None)
    with clock("evaluate/score"):
        return merged(evaluator, worker)


def scores(metrics: Metrics | None, spec: TrainSpec) -> dict:
    """What an evaluation adds to its epoch's row; empty on ranks that hold no metrics."""
    if metrics is None or not spec.data.image_weights:
        return figures(metrics)
    return figures(metrics) | {CLASS_AP: [found.ap for found in metrics.per_class.values()]}


def average_losses(means: dict[str, float], worker: Worker) -> dict[str, float]:
    """Loss terms averaged over the images of all ranks."""
    if worker.world_size == 1:
        return means
    names = [name for name in means if name.startswith("train/")]
    sums = torch.tensor([means[name] * means["num_images"] for name in names] + [means["num_images"]],
                        dtype=torch.float32, device=worker.device)
    dist.all_reduce(sums)
    *losses, num_images = sums.tolist()
    return means | {name: loss / num_images for name, loss in zip(names, losses)} | {"num_images": int(num_images)}


def scalars(row: dict) -> dict[str, float]:
    """The numbers of a row, without its nested parts."""
    return {key: value for key, value in row.items() if isinstance(value, (int, float))}
