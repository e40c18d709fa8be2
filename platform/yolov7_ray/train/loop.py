"""The spine: one worker's training. Build, restore; each epoch fit, validate, save; every rank alike."""

import time
from dataclasses import dataclass

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from yolov7.clock import Clock
from yolov7.describe import count_flops, count_parameters
from yolov7.engine import evaluate, resolve_precision, train_one_epoch
from yolov7.loss import Criterion
from yolov7.metrics import CocoEvaluator, Metrics
from yolov7.optim import Schedule
from yolov7.state import TrainState

from ..data.cache import NodeCache
from ..data.dataset import ArrowDataset, evaluation_loader, train_loader
from ..registry.model_source import load_model
from ..spec import Reading, TrainSpec
from .checkpoint import restore, save
from .board import Reporter
from .report import RunLog, Samples


@dataclass
class Worker:
    """One rank's view of the run."""

    rank: int
    world_size: int
    device: torch.device
    loader_processes: int

    @classmethod
    def current(cls, spec: TrainSpec) -> "Worker":
        context = ray.train.get_context()
        spare = min(8, int(spec.resources.cpus_per_worker) - 1)
        processes = spec.data.loader_processes
        return cls(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device(),
                   max(0, spare) if processes is None else processes)


def train_loop(config: dict) -> dict:
    """Train on this worker and return the last row of metrics; ``config`` holds the spec and the run's URI."""
    spec = TrainSpec.model_validate(config["spec"])
    worker = Worker.current(spec)
    train_set, val_set = open_splits(spec.dataset, spec.data, spec.data.train_split, spec.data.val_split)
    state = build_state(spec, train_set, worker.device)
    restore(state)
    network = wrap(state.model, spec)
    criterion = build_criterion(spec, state.model).to(worker.device)
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
        clock, start = Clock(), time.perf_counter()
        reporter.start_epoch()
        fit = train_one_epoch(
            state, epoch_batches(spec, train_set, epoch, worker), criterion, network=network,
            world_size=worker.world_size, precision=resolve_precision(spec.precision, worker.device), clock=clock,
            on_step=lambda steps, shares: reporter.step(epoch, steps, shares),
        )
        row = {"epoch": state.epoch} | average_losses(fit, worker)
        row["images_per_s"] = len(train_set) / (time.perf_counter() - start)
        last = state.epoch == spec.epochs
        metrics, samples = None, Samples(train_set.classes)
        if last or state.epoch % spec.evaluation.every_epochs == 0:
            metrics = validate(spec, state, val_set, worker, clock, samples if last else None)
            row |= figures(metrics)
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


def build_state(spec: TrainSpec, train_set: ArrowDataset, device: torch.device) -> TrainState:
    """A fresh state with every random draw decided by the seed."""
    torch.manual_seed(spec.seed)
    initial = None
    if spec.model.weights is not None:
        initial = load_model(spec.model.weights, spec.model.registry).model.state_dict()
    schedule = Schedule(spec.optimizer, spec.epochs, -(-len(train_set) // spec.batch_size), spec.batch_size,
                        max(spec.batch_size, spec.nominal_batch_size))
    return TrainState.build(spec.model.build_architecture(), list(train_set.classes), schedule, spec.ema,
                            device, initial)


def wrap(model: nn.Module, spec: TrainSpec) -> nn.Module:
    """The data-parallel wrapper, where there is more than one worker."""
    if spec.model.sync_batchnorm and dist.is_initialized() and dist.get_world_size() > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return ray.train.torch.prepare_model(model, move_to_device=False)


def build_criterion(spec: TrainSpec, model: nn.Module) -> Criterion:
    """The loss with its gains scaled to classes, levels and image size."""
    config = spec.loss.scaled_to(model.num_classes, len(model.strides), spec.data.image_size_px)
    return Criterion.for_model(model, config)


def epoch_batches(spec: TrainSpec, train_set: ArrowDataset, epoch: int, worker: Worker):
    """This rank's share of every global batch of ``epoch``."""
    steps = train_loader(
        train_set, size_px=spec.data.image_size_px, augment=spec.augment, batch_size=spec.batch_size,
        seed=spec.seed, epoch=epoch, rank=worker.rank, world_size=worker.world_size,
        processes=worker.loader_processes,
    )
    return ((step.batch, step.num_samples) for step in steps)


def validate(spec: TrainSpec, state: TrainState, val_set: ArrowDataset, worker: Worker, clock: Clock,
             samples: Samples | None) -> Metrics | None:
    """Evaluate the average on this rank's stride of the split; rank 0 returns the metrics of all."""
    synchronize(state)
    evaluator = evaluate(
        state.ema.model,
        evaluation_loader(val_set, size_px=spec.data.image_size_px,
                          batch_size=spec.evaluation.batch_size or -(-spec.batch_size // worker.world_size),
                          rank=worker.rank, world_size=worker.world_size, processes=worker.loader_processes),
        map(val_set.truth, range(worker.rank, len(val_set), worker.world_size)),
        CocoEvaluator(val_set.classes),
        precision=resolve_precision(spec.precision, worker.device),
        confidence_threshold=spec.evaluation.confidence_threshold,
        iou_threshold=spec.evaluation.iou_threshold,
        clock=clock,
        on_batch=samples.add if samples is not None and worker.rank == 0 else None,
    )
    with clock("evaluate/score"):
        states = gather(evaluator.state(), worker)
        return CocoEvaluator.merged(val_set.classes, states).compute() if worker.rank == 0 else None


def synchronize(state: TrainState) -> None:
    """Give every rank rank 0's average: its batch statistics come from each rank's own images."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in state.ema.tensors():
            dist.broadcast(tensor, src=0)


def gather(value: dict, worker: Worker) -> list[dict]:
    """``value`` of every rank, on rank 0; elsewhere an empty list."""
    if worker.world_size == 1:
        return [value]
    values = [None] * worker.world_size if worker.rank == 0 else None
    dist.gather_object(value, values, dst=0)
    return values or []


def average_losses(fit: dict[str, float], worker: Worker) -> dict[str, float]:
    """Loss terms averaged over the images of all ranks."""
    if worker.world_size == 1:
        return fit
    names = [name for name in fit if name.startswith("train/")]
    sums = torch.tensor([fit[name] * fit["num_images"] for name in names] + [fit["num_images"]],
                        dtype=torch.float32, device=worker.device)
    dist.all_reduce(sums)
    *losses, num_images = sums.tolist()
    return fit | {name: loss / num_images for name, loss in zip(names, losses)} | {"num_images": int(num_images)}


def figures(metrics: Metrics | None) -> dict[str, float | None]:
    """COCO's twelve figures; empty on ranks that hold none."""
    overall = {} if metrics is None else metrics.to_dict()["overall"]
    return {name: value for name, value in overall.items() if name.startswith(("ap", "ar"))}


def scalars(row: dict) -> dict[str, float]:
    """The numbers of a row, without its nested parts."""
    return {key: value for key, value in row.items() if isinstance(value, (int, float))}
