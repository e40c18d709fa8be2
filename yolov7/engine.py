"""One epoch of training and one evaluation: plain PyTorch, so that a notebook trains without a cluster.

Shape letters: B images · N targets · C classes.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

from .batch import Batch, normalize
from .clock import Clock
from .freeze import train_mode
from .loss import Criterion
from .metrics import CocoEvaluator
from .postprocess import postprocess
from .sample import Truth
from .state import TrainState

Precision = Literal["fp32", "bf16"]
TERMS = ("box", "objectness", "classification")


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


def train_one_epoch(
    state: TrainState,
    batches: Iterable[tuple[Batch, int]],
    criterion: Criterion,
    *,
    network: nn.Module | None = None,
    world_size: int = 1,
    precision: Precision = "fp32",
    clock: Clock | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train over ``batches`` and return the mean loss terms, counters and learning rate.

    ``batches`` yields this rank's share of every global batch with its number of images; a share of 0 images
    still takes part with weight 0, so that ranks stay in step. ``network`` is ``state.model`` or its data-parallel
    wrapper. The gradient is the sum over all images of the global batch, as if one worker had seen it.
    Raises FloatingPointError when the epoch's loss is not finite.
    """
    network, clock = network or state.model, clock or Clock()
    device = next(state.model.parameters()).device
    train_mode(network)
    sums = torch.zeros(len(TERMS), device=device)
    first = state.epoch * state.schedule.steps_per_epoch
    num_images = since_update = steps = 0
    for batch, share in clock.over("fetch", batches):
        with clock("step"):
            step = first + steps
            state.schedule.apply(state.optimizer, step)
            with autocast(device, precision):
                outputs = network(normalize(batch.images.to(device, non_blocking=True)))
            loss = criterion(outputs, batch.targets)  # targets stay on the host, where anchors are matched
            (loss.total * (world_size if share else 0)).backward()
            since_update += 1
            if state.schedule.updates_after(step, since_update):
                state.optimizer.step()
                state.optimizer.zero_grad(set_to_none=True)
                state.ema.update()
                since_update = 0
            if share:
                sums += torch.stack([loss.box, loss.objectness, loss.classification]) * share
            num_images += share
            steps += 1
        if on_step is not None:
            on_step(steps, clock.shares())
    means = (sums / max(1, num_images)).tolist()
    if not all(map(torch.isfinite, torch.tensor(means))):
        raise FloatingPointError(f"epoch {state.epoch + 1}: the loss is not finite ({dict(zip(TERMS, means))}); "
                                 "lower optimizer.learning_rate or lengthen optimizer.warmup_epochs")
    state.epoch += 1
    rates = {group["role"]: group["lr"] for group in state.optimizer.param_groups}
    return {f"train/{name}": mean for name, mean in zip(TERMS, means)} | {
        "num_images": num_images, "steps": steps, "learning_rate": rates["weight"]}


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    truths: Iterable[Truth],
    evaluator: CocoEvaluator,
    *,
    precision: Precision = "fp32",
    confidence_threshold: float = 0.001,
    iou_threshold: float = 0.65,
    multi_label: bool = True,
    class_agnostic: bool = False,
    clock: Clock | None = None,
    on_batch: Callable[[Batch, list[torch.Tensor]], None] | None = None,
) -> CocoEvaluator:
    """Detect on letterboxed ``batches`` and add detections and ``truths`` to ``evaluator``, in original pixels.

    ``truths`` run in step with the images of the batches. ``on_batch`` sees every batch with its detections
    (n, 6) in pixels of the letterboxed images.
    """
    clock = clock or Clock()
    device = next(model.parameters()).device
    model.eval()
    truths = iter(truths)
    for batch in clock.over("evaluate/fetch", batches):
        with clock("evaluate/detect"):
            with autocast(device, precision):
                predictions = model(normalize(batch.images.to(device, non_blocking=True)))
            found = postprocess(predictions.float(), confidence_threshold, iou_threshold, multi_label, class_agnostic)
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
