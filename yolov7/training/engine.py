"""One epoch of training and one evaluation: plain PyTorch, so that training works in a notebook, without a cluster.

Shape letters: B images · N targets · C classes.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn

from ..criterion.loss import Criterion
from ..evaluation.metrics import CocoEvaluator
from ..evaluation.postprocess import postprocess
from ..images.batch import Batch, normalize
from ..images.sample import Truth
from .data_parallel import DataParallel
from .freeze import train_mode
from .stage_clock import Clock
from .state import TERMS, TrainState

Precision = Literal["fp32", "bf16"]


def resolve_precision(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """``auto`` becomes bf16 where the device multiplies bf16 natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """Mixed precision for forward passes; weights, losses and the optimizer stay fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class Diverged(FloatingPointError):
    """Too many updates in a row had a loss or gradient that is not finite; training cannot continue."""


def train_one_epoch(
    state: TrainState,
    steps: Iterable[Sequence[tuple[Batch, int]]],
    criterion: Criterion,
    *,
    network: nn.Module | None = None,
    precision: Precision = "fp32",
    max_skipped: int = 10,
    clock: Clock | None = None,
    on_step: Callable[[dict[str, float]], None] | None = None,
    on_update: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Train for the rest of the epoch and return its mean loss terms, counters and learning rate.

    ``steps`` yields, for every global batch from ``state.step`` on, this rank's parts of it: pairs of a batch and
    its number of images; a part of 0 images has weight 0, so that ranks stay synchronised. The gradient is
    the sum over all images of the global batch, however it is split. ``network`` is ``state.model`` or its
    data-parallel wrapper. ``on_update`` is called after every update, when the state can be saved.

    An update whose loss or gradient is not finite is skipped, and the batch statistics are restored.
    Raises Diverged after ``max_skipped`` such updates in a row.
    """
    network, clock = network or state.model, clock or Clock()
    train_mode(network)
    statistics = Statistics(state.model)
    accumulated = torch.zeros(len(TERMS) + 1, dtype=torch.float64, device=next(state.model.parameters()).device)
    steps_since_update = 0
    for parts in clock.over("fetch", steps):
        with clock("step"):
            global_step = state.epoch * state.schedule.steps_per_epoch + state.step
            state.schedule.apply(state.optimizer, global_step, state.learning_rate_factor)
            steps_since_update += 1
            state.step += 1
            is_update = state.schedule.updates_after(global_step, steps_since_update)
            waited_s = add_gradients(network, parts, criterion, precision, accumulated, synchronize=is_update)
            if is_update:
                update(state, accumulated, statistics)
                steps_since_update = 0
        if waited_s:
            clock.add({"synchronize": waited_s, "step": -waited_s})
        if is_update and state.skipped_in_a_row >= max_skipped:
            raise Diverged(f"epoch {state.epoch + 1}, step {state.step}: loss or gradient was not finite in "
                           f"{state.skipped_in_a_row} updates in a row")
        if on_step is not None:
            on_step(clock.shares())
        if is_update and on_update is not None:
            on_update()
    *sums, num_images = state.totals.tolist()
    rates = {group["role"]: group["lr"] for group in state.optimizer.param_groups}
    row = {f"train/{name}": value / max(1, num_images) for name, value in zip(TERMS, sums)} | {
        "num_images": int(num_images), "steps": state.step, "skipped_updates": state.skipped_updates,
        "learning_rate": rates["weight"]}
    state.epoch, state.step = state.epoch + 1, 0
    state.totals.zero_()
    return row


def add_gradients(network: nn.Module, parts: Sequence[tuple[Batch, int]], criterion: Criterion, precision: Precision,
                  accumulated: torch.Tensor, synchronize: bool) -> float:
    """Add the gradient of ``parts``, and to ``accumulated``, (4,) float64, their loss terms times images, and images.

    Ranks sum both only in the last backward pass before an update, ``synchronize``. Returns the seconds that it waited
    for other ranks' gradients when its own were complete.
    """
    device, waited_s = next(network.parameters()).device, 0.0
    for number, (batch, num_images) in enumerate(parts, 1):
        exchanged = isinstance(network, DataParallel) and synchronize and number == len(parts)
        local = isinstance(network, DataParallel) and not exchanged
        with network.no_sync() if local else nullcontext():
            with autocast(device, precision):
                outputs = network(normalize(batch.images.to(device, non_blocking=True)))
            loss = criterion(outputs, batch.targets)  # targets stay on the host, where anchors are matched
            if num_images:
                terms = (loss.box, loss.objectness, loss.classification, torch.ones_like(loss.box))
                accumulated += torch.stack(terms).detach().double() * num_images
            summed = dist.all_reduce(accumulated, async_op=True) if exchanged else None
            (loss.total * (1 if num_images else 0)).backward()
        if exchanged:
            waited_s = network.waited_s()
            summed.wait()
    return waited_s


def update(state: TrainState, accumulated: torch.Tensor, statistics: "Statistics") -> None:
    """One optimizer and EMA step, unless something is not finite; ``accumulated`` is reset."""
    parameters = [p for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    if bool(torch.isfinite(accumulated.sum() + norm)):
        if clip_norm := state.schedule.config.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
        state.optimizer.step()
        state.ema.update()
        state.totals += accumulated.cpu()
        state.skipped_in_a_row = 0
        statistics.remember()
    else:
        state.skipped_updates += 1
        state.skipped_in_a_row += 1
        statistics.restore()
    state.optimizer.zero_grad(set_to_none=True)
    accumulated.zero_()


class Statistics:
    """A model's batch statistics as of the last update: one bad batch would corrupt them permanently."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [buffer for name, buffer in model.named_buffers() if "running_" in name]
        self._saved = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def remember(self) -> None:
        torch._foreach_copy_(self._saved, self._buffers)

    @torch.no_grad()
    def restore(self) -> None:
        torch._foreach_copy_(self._buffers, self._saved)


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable[Batch], truths: Iterable[Truth], evaluator: CocoEvaluator, *,
             precision: Precision = "fp32", **settings: Any) -> CocoEvaluator:
    """`evaluate_predictions`, with its ``settings``, of a model on its device."""
    device = next(model.parameters()).device
    model.eval()

    def predict(images: torch.Tensor) -> torch.Tensor:
        with autocast(device, precision):
            return model(normalize(images.to(device, non_blocking=True)))

    return evaluate_predictions(predict, batches, truths, evaluator, **settings)


def evaluate_predictions(
    predict: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[Batch],
    truths: Iterable[Truth],
    evaluator: CocoEvaluator,
    *,
    confidence_threshold: float = 0.001,
    iou_threshold: float = 0.65,
    multi_label: bool = True,
    class_agnostic: bool = False,
    clock: Clock | None = None,
    on_batch: Callable[[Batch, list[torch.Tensor]], None] | None = None,
) -> CocoEvaluator:
    """Detect on letterboxed ``batches`` and add detections and ``truths`` to ``evaluator``, in original pixels.

    ``predict``: images (B, 3, H, W) uint8 -> decoded predictions (B, N, 5 + C). ``truths`` are in the order of the
    images of the batches. ``on_batch`` gets every batch with its detections (n, 6) in pixels of the letterboxed images.
    """
    clock, truths = clock or Clock(), iter(truths)
    for batch in clock.over("evaluate/fetch", batches):
        with clock("evaluate/detect"):
            found = postprocess(predict(batch.images).float(), confidence_threshold, iou_threshold, multi_label,
                                class_agnostic)
            if on_batch is not None:
                on_batch(batch, found)
            for image_id, letterbox, detections in zip(batch.image_ids.tolist(), batch.letterboxes, found, strict=True):
                truth = next(truths)
                assert truth.image_id == image_id, f"truth {truth.image_id} met image {image_id}: they are out of step"
                detections = detections.cpu()
                detections[:, :4] = torch.as_tensor(letterbox.to_original(detections[:, :4].numpy()))
                evaluator.add(truth.image_id, truth.size_hw, truth.boxes_xyxy, truth.labels, truth.iscrowd,
                              truth.area, detections)
    return evaluator
