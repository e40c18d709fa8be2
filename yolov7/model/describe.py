"""Cost and structure of a model: parameters, FLOPs, and a table of its parts.

FLOPs count a multiplication and an addition as two operations, in convolutions only, for one image.
Everything runs on the meta device (shapes without data), so even the largest model takes only a moment.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..architectures.language import Architecture
from ..architectures.published import PUBLISHED
from .backbone import Backbone, BackboneStage
from .detector import YOLO, build_model
from .elan import ExtendedElanBlock
from .head import DetectionHead
from .neck import BottomUpStep, PyramidNeck, TopDownStep
from .reparameterize import fuse, reparameterize

# Modules that are described by their parts; any other module is one part.
_CONTAINERS = (
    YOLO, Backbone, BackboneStage, PyramidNeck, TopDownStep, BottomUpStep, DetectionHead,
    ExtendedElanBlock, nn.ModuleList,
)  # fmt: skip


@dataclass(frozen=True)
class PartCost:
    """One part of the model: its block, output shape (C, H, W), pixels per cell, parameters, FLOPs."""

    name: str
    block: str
    shape: tuple[int, int, int]
    stride: int
    num_parameters: int
    num_flops: int


def count_parameters(model: nn.Module) -> int:
    """Count learned values (buffers such as running statistics excluded)."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(
    model_or_architecture: YOLO | Architecture | str, image_size_px: int, num_classes: int = 80, *, folded: bool = False
) -> int:
    """Count the FLOPs of one square image.

    An architecture is counted in training form (with its auxiliary head) unless `folded`; a model as
    it is, whatever `num_classes` and `folded` say. ValueError if the size does not fit the strides.
    """
    if isinstance(model_or_architecture, YOLO):
        model = model_or_architecture
        model_or_architecture, num_classes, folded = model.architecture, model.num_classes, model.is_folded
    return sum(_flops_by_conv(_on_meta(model_or_architecture, num_classes, folded), image_size_px).values())


def part_costs(architecture: Architecture | str, image_size_px: int, num_classes: int = 80) -> list[PartCost]:
    """List the parts of the training form in the order in which they run."""
    model = _on_meta(architecture, num_classes, folded=False)
    modules = dict(_parts(model))
    shapes: dict[str, tuple[int, int, int]] = {}

    def record_shape(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            shapes[name] = tuple(output.shape[1:])

        return hook

    for name, module in modules.items():
        module.register_forward_hook(record_shape(name))
    flops = _flops_by_conv(model, image_size_px)
    return [
        PartCost(
            name=name,
            block=type(modules[name]).__name__,
            shape=shape,
            stride=image_size_px // shape[1],
            num_parameters=count_parameters(modules[name]),
            num_flops=sum(flops.get(module, 0) for module in modules[name].modules()),
        )
        for name, shape in shapes.items()
    ]


def _parts(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield (name, part) of each part of a container, or the module itself if it is a part."""
    if not isinstance(module, _CONTAINERS):
        yield prefix, module
        return
    for name, child in module.named_children():
        if not isinstance(child, nn.Identity):  # a slot that this architecture does not use
            yield from _parts(child, f"{prefix}.{name}" if prefix else name)


def describe(architecture: Architecture | str, num_classes: int = 80, image_size_px: int | None = None) -> str:
    """Return a human-readable table of the parts and the totals of each form.

    The forms: as trained; fused (batch normalisation and RepConv folded); folded (implicit knowledge
    too, without the auxiliary head), the form for inference.
    """
    trained = _on_meta(architecture, num_classes, folded=False)
    size_px = image_size_px or trained.architecture.default_image_size_px
    strides = ", ".join(map(str, trained.strides))
    lines = [
        f"{trained.architecture.name}: {num_classes} classes, {size_px} px, strides {strides}",
        "",
        f"{'part':<31}{'block':<19}{'output C x H x W':>18}{'stride':>8}{'parameters':>14}{'GFLOPs':>10}",
    ]
    for part in part_costs(architecture, size_px, num_classes):
        name, shape = f"{part.name:<31}{part.block:<19}", " x ".join(map(str, part.shape))
        lines.append(f"{name}{shape:>18}{part.stride:>8}{part.num_parameters:>14,}{part.num_flops / 1e9:>10.3f}")
    lines.append("")
    forms = {"training form": trained, "fused": fuse(trained).train(), "folded": reparameterize(trained)}
    for form, model in forms.items():
        gflops = sum(_flops_by_conv(model, size_px).values()) / 1e9
        lines.append(f"{form:<76}{count_parameters(model):>14,}{gflops:>10.3f}")
    return "\n".join(lines)


def comparison(runs: Sequence[str] = ()) -> str:
    """Return the paper's Tables 1 and 2 as published, beside parameters and FLOPs of our folded models.

    ``runs``, directories of trainings on this machine, add a table of what was measured: AP of the best epoch on their
    own validation split, and the speed of training. ValueError for one without results.json.
    """
    measured = [*map(_measured, runs)]
    lines = ["AP (%), parameters and FLOPs as published in arXiv:2207.02696, not measured here: COCO val2017, speed in",
             "images/s on a V100, one at a time. Ours: the folded model of the same name, counted here. The paper",
             "counts YOLOv7-D6 with its auxiliary head."]
    for title, rows in PUBLISHED.items():
        lines += ["", f"{title} (published)", f"{'model':<18}{'size px':>8}{'AP':>6}{'AP50':>6}{'AP75':>6}{'speed':>7}"
                  f"{'params M':>10}{'GFLOPs':>8}  {'ours':<17}{'params M':>9}{'GFLOPs':>8}"]
        for row in rows:
            figures = "".join(f"{'-' if value is None else value:>{width}}" for value, width in (
                (row.ap, 6), (row.ap50, 6), (row.ap75, 6), (row.fps, 7), (row.parameters_m, 10), (row.flops_g, 8)))
            own = f"  {'-':<17}"
            if row.own:
                model = _on_meta(row.own, 80, folded=True)
                parameters, flops = count_parameters(model), count_flops(model, row.image_size_px)
                own = f"  {row.own:<17}{parameters / 1e6:>9.1f}{flops / 1e9:>8.1f}"
            lines.append(f"{row.model:<18}{row.image_size_px:>8}{figures}{own}".rstrip())
    if measured:
        lines += ["", "Runs (measured on their own validation split; speed: images/s while training)",
                  f"{'run':<18}{'size px':>8}{'AP':>6}{'AP50':>6}{'AP75':>6}{'speed':>7}{'params M':>10}{'GFLOPs':>8}"
                  "  architecture, dataset", *measured]
    return "\n".join(lines)


def _measured(run: str) -> str:
    try:
        found = json.loads(Path(run, "results.json").read_text())
        best, size_px = found["best"], found["spec"]["data"]["image_size_px"]
        speed = statistics.median(row["images_per_s"] for row in found["epochs"])
        cost = f"{found['parameters'] / 1e6:>10.1f}{found['gflops']:>8.1f}"
        origin = f"{found['architecture']}, {found['dataset']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run}: holds no results of a training ({error}); give a run's directory") from None
    ap = "".join(f"{'-' if best.get(key) is None else format(100 * best[key], '.1f'):>6}"
                 for key in ("ap", "ap50", "ap75"))
    return f"{Path(run).name:<18}{size_px:>8}{ap}{speed:>7.0f}{cost}  {origin}"


def _on_meta(architecture: Architecture | str, num_classes: int, folded: bool) -> YOLO:
    with torch.device("meta"):
        return build_model(architecture, num_classes, folded=folded).train()


def _flops_by_conv(model: YOLO, image_size_px: int) -> dict[nn.Module, int]:
    """Run a meta model and count at each convolution; the model cannot be used for anything else afterwards."""
    flops: dict[nn.Module, int] = {}

    def count(conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        flops[conv] = 2 * conv.weight[0].numel() * output[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
        elif isinstance(module, (nn.BatchNorm2d, nn.SiLU)):
            module.forward = nn.Identity().forward  # they keep the shape, and take most of the time on meta
    with torch.no_grad():
        model(torch.empty(1, 3, image_size_px, image_size_px, device="meta"))
    return flops
