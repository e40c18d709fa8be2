"""Loading and saving weights: official checkpoints by name, our own files as safetensors.

A file written by `save_model` is self-describing: its metadata holds the architecture, the classes, the image
size and whether the weights are folded. Nothing here unpickles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..architectures.family import Architecture
from ..model.detector import YOLO, build_model
from .official_names import find_differences, official_names

FORMAT = "yolov7/1"
RECORDS = ("version.json", "spec.json")
"""Files beside a model file that tell its image size where the file itself, of version 0.1, does not."""


def load_official_state_dict(model: YOLO, state_dict: Mapping[str, Tensor]) -> None:
    """Load a state dict with official names (`model.0.conv.weight` …) into a model.

    A model in training form takes a training checkpoint; a folded one takes fused weights. Names and
    shapes must agree exactly. Anchors are taken from `anchor_grid` (pixels). Half precision is widened
    to the model's. ValueError lists the missing, unexpected and misshapen names.
    """
    require_official_fit(model, state_dict)
    names = official_names(model)
    loaded = {own: state_dict[official] for official, own in names.items() if own is not None}
    loaded["anchors_px"] = loaded["anchors_px"].reshape(model.anchors_px.shape)
    model.load_state_dict(loaded, strict=True)


def require_official_fit(model: YOLO, state_dict: Mapping[str, Tensor]) -> None:
    """ValueError that lists missing, unexpected and misshapen names, if there are any."""
    differences = find_differences(model, state_dict)
    if len(differences):
        form = "folded" if model.is_folded else "training"
        raise ValueError(
            f"official weights do not fit {model.architecture.name} with {model.num_classes} classes "
            f"in {form} form: {differences}"
        )


def save_weights(path: str | os.PathLike, state_dict: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and string metadata as one safetensors file."""
    save_file({key: tensor.detach().contiguous() for key, tensor in state_dict.items()}, path, metadata=metadata)


def load_weights(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors (on the CPU) and metadata; ValueError if it is not a complete safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f"{os.fspath(path)}: not a readable safetensors file ({error}); give a file of save_weights"
        ) from error


def save_model(path: str | os.PathLike, model: YOLO, classes: list[str],
               state_dict: Mapping[str, Tensor] | None = None, *, image_size_px: int | None = None) -> None:
    """Write a model, trained or folded, with its architecture and class names into one file.

    `state_dict`, if given, is written instead of the model's own. `image_size_px` is the longer side of the images
    that it was trained on, at which it is used by default; None if unknown.
    """
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
    } | ({} if image_size_px is None else {"image_size_px": str(image_size_px)})
    save_weights(path, model.state_dict() if state_dict is None else state_dict, metadata)


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


def trained_image_size_px(path: str | os.PathLike) -> int | None:
    """The image size that `save_model` wrote into a file, else that of a record beside it; None if neither tells.

    No weights are read. ValueError if it is not a complete safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)}: not a readable safetensors file ({error}); give a model file") from error
    if "image_size_px" in metadata:
        return int(metadata["image_size_px"])
    for record in (Path(path).with_name(name) for name in RECORDS):
        if record.is_file() and (size_px := recorded_image_size_px(json.loads(record.read_bytes()))):
            return size_px
    return None


def recorded_image_size_px(record: Any) -> int | None:
    """The image size in a version's record (`image_size_px`) or a train job's spec (`data.image_size_px`), or None."""
    if not isinstance(record, dict):
        return None
    data = record.get("data")
    size_px = record.get("image_size_px") or (data.get("image_size_px") if isinstance(data, dict) else None)
    return size_px if isinstance(size_px, int) else None
