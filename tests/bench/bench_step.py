"""Training steps side by side: number format, memory layout and compilation, and what each stage of a step takes.

    python tests/bench/bench_step.py --architecture yolov7-tiny --size-px 320 --batch-size 16 --threads 2

``plain`` is what one writes first: fp32, NCHW, an optimizer that loops over the tensors.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from yolov7.architectures.family import architecture
from yolov7.images.batch import Batch
from yolov7.training.config import EMAConfig
from yolov7.training.engine import add_gradients, update, Precision, Statistics
from yolov7.criterion.loss import Criterion
from yolov7.criterion.config import LossConfig
from yolov7.training.config import OptimizerConfig
from yolov7.training.schedule import Schedule
from yolov7.training.state import TrainState

CLASSES = 80
OBJECTS = 7
"""Per image, as in COCO."""


@dataclass(frozen=True)
class Variant:
    """One way to make a step."""

    precision: Precision = "fp32"
    channels_last: bool = True
    fused: bool = True
    compiled: bool = False


VARIANTS = {
    "plain": Variant(channels_last=False, fused=False),
    "fp32, channels last": Variant(),
    "bf16, NCHW": Variant("bf16", channels_last=False),
    "bf16, channels last": Variant("bf16"),
    "bf16, channels last, compiled": Variant("bf16", compiled=True),
}


def batch(size_px: int, batch_size: int) -> Batch:
    """Noise with boxes of all sizes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, size_px, size_px), generator=generator, dtype=torch.uint8)
    number = torch.arange(batch_size).repeat_interleave(OBJECTS)
    wh = 0.02 + 0.5 * torch.rand(len(number), 2, generator=generator) ** 2
    centre = wh / 2 + (1 - wh) * torch.rand(len(number), 2, generator=generator)
    labels = torch.randint(0, CLASSES, (len(number),), generator=generator)
    targets = torch.cat([number[:, None], labels[:, None], centre, wh], 1)
    return Batch(images, targets.float(), torch.arange(batch_size))


def stepper(name: str, variant: Variant, options: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """A function that makes one step and returns the milliseconds of its stages."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    schedule = Schedule(OptimizerConfig(), 300, 1000, options.batch_size, options.batch_size)
    state = TrainState.build(architecture(options.architecture), [str(n) for n in range(CLASSES)], schedule,
                             EMAConfig(), device)
    if not variant.channels_last:
        state.model.to(memory_format=torch.contiguous_format)
    for group in state.optimizer.param_groups:
        group["fused"], group["foreach"] = variant.fused, False
    network: nn.Module = torch.compile(state.model) if variant.compiled else state.model
    config = LossConfig().scaled_to(CLASSES, len(state.model.strides), options.size_px)
    criterion = Criterion.for_model(state.model, config).to(device)
    window = torch.zeros(4, dtype=torch.float64, device=device)
    statistics_, made = Statistics(state.model), batch(options.size_px, options.batch_size)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    state.model.train()

    def step() -> dict[str, float]:
        wait()
        start = time.perf_counter()
        add_gradients(network, [(made, options.batch_size)], criterion, variant.precision, window, synchronize=True)
        wait()
        middle = time.perf_counter()
        update(state, window, statistics_)
        wait()
        return {"forward and backward": 1e3 * (middle - start), "update": 1e3 * (time.perf_counter() - middle)}

    return step


def main() -> None:
    """Print medians over rounds in which every variant makes its steps in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="yolov7-tiny")
    parser.add_argument("--size-px", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="measure the compiled variant too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steppers = {name: stepper(name, variant, options) for name, variant in VARIANTS.items()
                if options.compile or not variant.compiled}
    for step in steppers.values():
        step()
        step()
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in steppers}
    for _ in range(options.rounds):
        for name, step in steppers.items():
            taken[name].append(step())
    medians = {name: {stage: statistics.median(step[stage] for step in steps) for stage in steps[0]}
               for name, steps in taken.items()}
    plain = sum(medians["plain"].values())
    print(f"{options.architecture}, {options.size_px} px, batch {options.batch_size}, {options.device}, "
          f"{options.threads} threads, torch {torch.__version__}")
    for name, stages in medians.items():
        total = sum(stages.values())
        print(f"{name:32} {total:8.1f} ms  {plain / total:5.2f} x plain  {1e3 * options.batch_size / total:7.1f} images/s  "
              + "  ".join(f"{stage} {taken_ms:.1f} ms" for stage, taken_ms in stages.items()))


if __name__ == "__main__":
    main()
