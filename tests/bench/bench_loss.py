"""How long the criterion takes on the CPU, forward and with backward; prints medians.

    python tests/bench/bench_loss.py [--repeats 21] [--threads 1] [--objects 500 2000]

The reference's figures for the same sizes are in brackets (two-core CPU, torch 2.15, 1 thread); they are
constants, measured elsewhere, not run here. Twice each: with outputs that are contiguous as the reference's
are, and laid out as our models give them, one plane per channel.
"""

import argparse
import statistics
import time

import torch

from yolov7.architectures.family import architecture
from yolov7.criterion.loss import Criterion

CASES = (
    ("yolov7, OTA", "yolov7", 640, 16, 115, 1, (48, 197)),
    ("yolov7-w6, auxiliary OTA", "yolov7-w6", 640, 8, 58, 2, (61, 204)),
)


def make_case(name: str, size_px: int, num_images: int, num_targets: int, num_heads: int):
    """Criterion, raw outputs with few objects in them, and targets of COCO's spread of sizes."""
    arch, rng = architecture(name), torch.Generator().manual_seed(0)
    outputs = []
    for stride in arch.strides * num_heads:
        shape = (num_images, 3, size_px // stride, size_px // stride, 85)
        output = torch.randn(shape, generator=rng)
        output[..., 4:] = output[..., 4:] * 1.5 - 4
        outputs.append(output.requires_grad_())
    targets = torch.rand(num_targets, 6, generator=rng)
    targets[:, 0] = 0 if num_targets >= 500 else (targets[:, 0] * num_images).floor()
    targets[:, 1] = (targets[:, 1] * 80).floor()
    targets[:, 4:] = torch.exp(targets[:, 4:] * 3 - 3.5)
    targets[:, 2:4] = targets[:, 4:] / 2 + targets[:, 2:4] * (1 - targets[:, 4:])
    return Criterion(arch.anchors_px, arch.strides, 80), outputs, targets


def as_planes(outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same outputs (B, A, H, W, 5+C), as views of (B, A, 5+C, H, W)."""
    planes = (output.detach().permute(0, 1, 4, 2, 3).contiguous() for output in outputs)
    return [plane.permute(0, 1, 3, 4, 2).requires_grad_() for plane in planes]


def median_ms(criterion: Criterion, outputs, targets, repeats: int) -> tuple[float, float]:
    """Median milliseconds of the forward pass alone, and of forward and backward."""
    forward_ms, both_ms = [], []
    for _ in range(repeats + 3):
        for output in outputs:
            output.grad = None
        start = time.perf_counter()
        total = criterion(outputs, targets).total
        middle = time.perf_counter()
        total.backward()
        forward_ms.append((middle - start) * 1e3)
        both_ms.append((time.perf_counter() - start) * 1e3)
    return statistics.median(forward_ms[3:]), statistics.median(both_ms[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--objects", type=int, nargs="+", default=[500],
                        help="cases of so many objects in one of 16 images, yolov7 (default: 500)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    crowded = [(f"yolov7, OTA, {count} objects in one of 16 images", "yolov7", 640, 16, count, 1, None)
               for count in arguments.objects]
    for title, name, size_px, num_images, num_targets, num_heads, reference in (*CASES, *crowded):
        criterion, outputs, targets = make_case(name, size_px, num_images, num_targets, num_heads)
        beside = "" if reference is None else f" (reference {reference[0]} and {reference[1]})"
        for layout, given in (("contiguous", outputs), ("as planes", as_planes(outputs))):
            forward, both = median_ms(criterion, given, targets, arguments.repeats)
            print(f"{title}, {layout}: forward {forward:.1f} ms, with backward {both:.1f} ms{beside}")


if __name__ == "__main__":
    main()
