"""Official names: mapping from official state-dict names to ours, and what does not fit.

The published models are flat lists of layers. A layer's number counts everything before it, poolings
and concatenations included; inside a layer, convolutions are numbered by position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..model.backbone import BackboneStage
from ..model.convolution import ConvBlock, DownC, PoolConv, RepConvBlock, SpaceToDepth
from ..model.detector import YOLO
from ..model.elan import ElanBlock, ExtendedElanBlock
from ..model.head import DetectionHead, ImplicitConv2d
from ..model.neck import BottomUpStep, TopDownStep
from ..model.pooling import CspPyramidPooling, LightCspPyramidPooling, MultiScalePool

MAX_LISTED = 10

_LAYERS = (ConvBlock, RepConvBlock, DownC, CspPyramidPooling, SpaceToDepth, nn.MaxPool2d)
"""What the published lists count as one layer."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, BackboneStage, TopDownStep, BottomUpStep,
           PoolConv, ElanBlock, ExtendedElanBlock, LightCspPyramidPooling)  # fmt: skip
_LAYERS_BEFORE = {
    (ElanBlock, "fuse"): 1,  # concatenation
    (TopDownStep, "lateral"): 1,  # upsampling
    (TopDownStep, "block"): 1,
    (BottomUpStep, "block"): 1,
    (LightCspPyramidPooling, "after_pool"): 4,  # three poolings, then the concatenation
    (LightCspPyramidPooling, "fuse"): 1,
}


def official_names(model: YOLO) -> dict[str, str | None]:
    """Return official name → our name, in the order of the published state dict; None for `anchors`.

    Training form and folded form both have names, a folded RepConv those of a convolution. ValueError for
    architectures that were not published in this form.
    """
    names: dict[str, str | None] = {}
    number = 0
    for part in ("backbone", "neck", "head"):
        for path, child in model.get_submodule(part).named_children():
            if path not in ("lead_predictors", "auxiliary_predictors"):
                number = _number_layers(child, f"{part}.{path}", number, names, model.architecture.name)
    return names | _detection_names(model.head, f"model.{number}")


def _number_layers(module: nn.Module, path: str, number: int, names: dict[str, str | None], architecture: str) -> int:
    """Name a module's tensors, its first layer being `number`; return the next layer number."""
    if isinstance(module, _LAYERS):
        names.update((f"model.{number}.{own}", f"{path}.{key}") for own, key in _layer_names(module))
        return number + 1
    if isinstance(module, MultiScalePool):  # counted at the layers that use its maps
        return number
    if not isinstance(module, _CONTAINERS):
        raise ValueError(f"{architecture}: no official names are known for {type(module).__name__}")
    for name, child in module.named_children():
        number += _LAYERS_BEFORE.get((type(module), name), 0)
        if isinstance(module, BackboneStage) and isinstance(module.downsample, PoolConv) and name == "block":
            number += 1  # its concatenation; in the neck it is merged with the next one
        number = _number_layers(child, f"{path}.{name}", number, names, architecture)
    return number + isinstance(module, ExtendedElanBlock)  # the sum of the two blocks


def _layer_names(layer: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield (official, own) names of a layer's tensors, without the layer's number."""
    convs = [(name, module) for name, module in layer.named_modules() if isinstance(module, ConvBlock)]
    for place, (path, conv) in enumerate(convs, start=1):
        if isinstance(layer, RepConvBlock):
            branch = "rbr_dense" if path == "dense" else "rbr_1x1"
            official = {"conv": f"{branch}.0", "norm": f"{branch}.1"}
        else:
            prefix = f"cv{place}." if path else ""
            official = {"conv": f"{prefix}conv", "norm": f"{prefix}bn"}
        for key in conv.state_dict():
            part, leaf = key.split(".")
            yield f"{official[part]}.{leaf}", f"{path}.{key}" if path else key


def _detection_names(head: DetectionHead, layer: str) -> dict[str, str | None]:
    names: dict[str, str | None] = {f"{layer}.anchors": None, f"{layer}.anchor_grid": "anchors_px"}
    for part, predictors in (("m", "lead_predictors"), ("m2", "auxiliary_predictors")):
        for level in range(len(head.get_submodule(predictors))):
            for leaf in ("weight", "bias"):
                names[f"{layer}.{part}.{level}.{leaf}"] = f"head.{predictors}.{level}.{leaf}"
    for part, leaf in (("ia", "addition"), ("im", "multiplication")):
        for level, predictor in enumerate(head.lead_predictors):
            if isinstance(predictor, ImplicitConv2d):
                names[f"{layer}.{part}.{level}.implicit"] = f"head.lead_predictors.{level}.{leaf}"
    return names


def official_shapes(model: YOLO) -> dict[str, torch.Size]:
    """Return official name → shape."""
    own = model.state_dict()
    levels, anchors, _ = model.anchors_px.shape
    grid_shape = torch.Size((levels, 1, anchors, 1, 1, 2))
    shapes = {key: tensor.shape for key, tensor in own.items()}
    shapes |= {None: model.anchors_px.shape, "anchors_px": grid_shape}
    return {official: shapes[key] for official, key in official_names(model).items()}


@dataclass(frozen=True)
class Differences:
    """Why official weights do not fit a model; `misshapen` holds name, shape, needed shape."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[tuple[str, tuple[int, ...], tuple[int, ...]]]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def __str__(self) -> str:
        shapes = [f"{name} is {shape} and needs {needed}" for name, shape, needed in self.misshapen]
        lists = {"missing": self.missing, "unexpected": self.unexpected, "misshapen": shapes}
        return "; ".join(f"{len(names)} {what}: {_truncated_list(names)}" for what, names in lists.items() if names)


def find_differences(model: YOLO, state_dict: Mapping[str, Tensor]) -> Differences:
    """Compare official weights with those that a model needs."""
    needed = official_shapes(model)
    return Differences(
        missing=[name for name in needed if name not in state_dict],
        unexpected=[name for name in state_dict if name not in needed],
        misshapen=[
            (name, tuple(state_dict[name].shape), tuple(shape))
            for name, shape in needed.items()
            if name in state_dict and state_dict[name].shape != shape
        ],
    )


def _truncated_list(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(str(name)[:200] for name in names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
