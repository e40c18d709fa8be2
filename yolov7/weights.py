"""Weights in and out: official checkpoints by name, our own files as safetensors.

A file written by `save_model` explains itself: its metadata holds the architecture, the classes and
whether the weights are folded. Nothing here unpickles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .architectures import Architecture
from .model import YOLO, build_model

FORMAT = "yolov7/1"

# The parts of official names, in the order in which our modules are defined. `m` predicts for the lead
# head with its implicit vectors `ia` (added) and `im` (multiplied), `m2` for the auxiliary head.
_OFFICIAL_PARTS = (
    "cv1", "cv2", "cv3", "cv4", "cv5", "cv6", "cv7", "rbr_dense", "rbr_1x1", "conv", "bn",
    "lead", "auxiliary", "m", "m2", "weight", "bias", "running_mean", "running_var", "num_batches_tracked",
    "ia", "im", "implicit",
)  # fmt: skip


def load_official_state_dict(model: YOLO, state_dict: Mapping[str, Tensor]) -> None:
    """Load a state dict with official names (`model.0.conv.weight` …) into a model in training form.

    Official names number the layers in the order in which our modules are defined, so the n-th
    tensor of one is the n-th of the other; every shape is checked. Anchors are taken from
    `anchor_grid` (pixels). Half precision is widened to the model's. ValueError says what differs.
    """
    if model.is_folded:
        raise ValueError(f"{model.architecture.name} is folded; official weights load into the training form")
    own = model.state_dict()
    own_keys = [key for key in own if key != "anchors_px"]
    grids = [key for key in state_dict if key.endswith(".anchor_grid")]
    keys = sorted((key for key in state_dict if not key.endswith((".anchors", ".anchor_grid"))), key=_official_order)
    if len(keys) != len(own_keys) or len(grids) != 1:
        raise ValueError(
            f"official weights: {len(keys)} tensors and {len(grids)} anchor grids do not fit "
            f"{model.architecture.name} in training form, which has {len(own_keys)} tensors and 1 anchor grid"
        )
    for own_key, key in zip(own_keys, keys):
        if own[own_key].shape != state_dict[key].shape:
            raise ValueError(
                f"official weights: {key} has shape {tuple(state_dict[key].shape)}; "
                f"{own_key} of {model.architecture.name} with {model.num_classes} classes "
                f"needs {tuple(own[own_key].shape)}"
            )
    loaded = {own_key: state_dict[key] for own_key, key in zip(own_keys, keys)}
    loaded["anchors_px"] = state_dict[grids[0]].reshape(model.anchors_px.shape)
    model.load_state_dict(loaded, strict=True)


def _official_order(key: str) -> tuple[int, ...]:
    """Return the sort key that brings official names into the order of our modules."""
    _, *parts = key.split(".")
    if len(parts) > 2 and parts[1] in ("m", "m2", "ia", "im"):  # we keep a level's vectors with its weights
        layer, part, level, *rest = parts
        parts = [layer, "auxiliary" if part == "m2" else "lead", level, part, *rest]
    try:
        return tuple(int(part) if part.isdigit() else _OFFICIAL_PARTS.index(part) for part in parts)
    except ValueError:
        raise ValueError(
            f"official weights: {key!r} is not an official name; names look like 'model.0.conv.weight'"
        ) from None


def save_weights(path: str | os.PathLike, state_dict: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and string metadata as one safetensors file."""
    save_file({key: tensor.detach().contiguous() for key, tensor in state_dict.items()}, path, metadata=metadata)


def load_weights(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors (on the CPU) and metadata; ValueError if it is no whole safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f"{os.fspath(path)}: not a readable safetensors file ({error}); give a file of save_weights"
        ) from error


def save_model(path: str | os.PathLike, model: YOLO, classes: list[str]) -> None:
    """Write a model, trained or folded, with its architecture and class names into one file."""
    if len(classes) != model.num_classes:
        raise ValueError(
            f"{os.fspath(path)}: {len(classes)} class names for {model.num_classes} classes; give one each"
        )
    metadata = {
        "format": FORMAT,
        "architecture": json.dumps(model.architecture.to_dict()),
        "num_classes": str(model.num_classes),
        "folded": json.dumps(model.is_folded),
        "classes": json.dumps(list(classes), ensure_ascii=False),
    }
    save_weights(path, model.state_dict(), metadata)


def load_model(path: str | os.PathLike) -> tuple[YOLO, list[str]]:
    """Read what `save_model` wrote: the model in evaluation mode, on the CPU, and its class names."""
    state_dict, metadata = load_weights(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)}: format {metadata.get('format')!r} is unknown; give a file of save_model")
    architecture = Architecture.from_dict(json.loads(metadata["architecture"]))
    with torch.device("meta"):  # shapes only: every tensor comes from the file
        model = build_model(architecture, int(metadata["num_classes"]), folded=json.loads(metadata["folded"]))
    model.load_state_dict(state_dict, strict=True, assign=True)
    return model.eval(), json.loads(metadata["classes"])
