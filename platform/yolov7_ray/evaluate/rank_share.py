"""Evaluation of a model on one rank's share of a split, and communication between ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from yolov7.evaluation.metrics import CocoEvaluator, Metrics
from yolov7.evaluation.augmented_inference import TestTimeAugmentation
from yolov7.training.engine import Precision, evaluate
from yolov7.training.stage_clock import Clock
from yolov7.training.state import TrainState

from ..data.reading.dataset import ArrowDataset, evaluation_loader, evaluation_order
from .spec import Evaluation


@dataclass
class Worker:
    """One rank's view of the run."""

    rank: int
    world_size: int
    device: torch.device
    loader_processes: int
    precision: Precision
    node: str = ""
    """Id of its node."""


@dataclass(frozen=True)
class Share:
    """What one rank found in its share of a split."""

    evaluator: CocoEvaluator
    order: Sequence[int]
    """Index in the split of each image of the evaluator."""


def evaluate_share(model: nn.Module, dataset: ArrowDataset, evaluation: Evaluation, worker: Worker, *, size_px: int,
                   batch_size: int, clock: Clock | None = None, on_batch: Callable | None = None) -> Share:
    """Detect in this rank's images of ``dataset``; returns detections and ground truth, not scored yet."""
    share = {"batch_size": evaluation.batch_size or batch_size, "rank": worker.rank,
             "world_size": worker.world_size, "rectangular": evaluation.rectangular}
    order = evaluation_order(dataset, **share)
    evaluator = evaluate(
        TestTimeAugmentation(model) if evaluation.test_time_augmentation else model,
        evaluation_loader(dataset, size_px=size_px, stride_px=max(model.strides), processes=worker.loader_processes,
                          **share),
        map(dataset.truth, order),
        CocoEvaluator(dataset.classes),
        precision=worker.precision,
        confidence_threshold=evaluation.confidence_threshold,
        iou_threshold=evaluation.iou_threshold,
        multi_label=evaluation.multi_label,
        class_agnostic=evaluation.class_agnostic,
        clock=clock,
        on_batch=on_batch,
    )
    return Share(evaluator, order)


def merged(share: Share, worker: Worker) -> Metrics | None:
    """The metrics over all ranks' shares, on rank 0."""
    evaluator = share.evaluator
    states = gather(evaluator.state(), worker)
    return CocoEvaluator.merged(evaluator.class_names, states).compute() if worker.rank == 0 else None


def figures(metrics: Metrics | None) -> dict[str, float | None]:
    """COCO's twelve metrics; empty on ranks without metrics."""
    overall = {} if metrics is None else metrics.to_dict()["overall"]
    return {name: value for name, value in overall.items() if name.startswith(("ap", "ar"))}


def synchronize(state: TrainState) -> None:
    """Broadcast rank 0's EMA weights, whose batch statistics otherwise differ between ranks."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in state.ema.tensors():
            dist.broadcast(tensor, src=0)


def gather(value: Any, worker: Worker) -> list:
    """``value`` of every rank, on rank 0; elsewhere an empty list."""
    if worker.world_size == 1:
        return [value]
    values = [None] * worker.world_size if worker.rank == 0 else None
    dist.gather_object(value, values, dst=0)
    return values or []


def share(value: Any, worker: Worker) -> Any:
    """Rank 0's ``value``, on every rank."""
    if worker.world_size == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
