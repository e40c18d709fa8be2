"""Import of official checkpoints: a `.pt` file, read as data, becomes one of our models.

Three forms are distinguished by their tensor names:

* training checkpoints have batch norms and implicit knowledge (and auxiliary heads);
* deployed ones (most published files) have batch norms, and their implicit knowledge is already folded:
  they become a model without it, and without auxiliary heads, that can be trained further;
* fused ones (after `fuse()`, by which official code loads models) have no batch norms left and become a folded model.
  What fusing leaves behind without using it again is dropped: implicit vectors, which it has multiplied into the
  predictors, and auxiliary layers.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..architectures.family import ARCHITECTURES
from ..architectures.language import Architecture
from ..model.detector import YOLO, build_model
from .official_names import Differences, find_differences
from .torchfile import read_torch_file
from .unpickle import Record
from .weights import load_official_state_dict, require_official_fit

WEIGHT_KEYS = ("ema", "model", "state_dict")
"""Keys under which checkpoints store weights: the moving average is preferred to the last step."""
MAX_MODULES = 10_000
MAX_DEPTH = 16
MAX_NAME_LENGTH = 100
_ACTIVATIONS = {"SiLU": "silu", "LeakyReLU": "leaky-relu"}


@dataclass(frozen=True)
class OfficialWeights:
    """The content of an official file that a model needs."""

    state_dict: dict[str, Tensor]
    """With official names."""
    class_names: list[str] | None
    activations: frozenset[str]
    """Those of the pickled modules; unknown for a state dict."""

    @property
    def num_classes(self) -> int:
        """The number of classes that the detection layer predicts; ValueError if there is none."""
        grids = [tensor for name, tensor in self.state_dict.items() if name.endswith(".anchor_grid")]
        predictors = [tensor for name, tensor in self.state_dict.items() if name.endswith(".m.0.weight")]
        if len(grids) != 1 or len(predictors) != 1 or grids[0].dim() != 6 or not grids[0].numel():
            raise ValueError("the weights have no detection layer (names like model.77.m.0.weight)")
        per_anchor, rest = divmod(predictors[0].shape[0] if predictors[0].dim() else 0, grids[0].shape[2])
        if rest or per_anchor < 6:
            raise ValueError(f"a detection layer of shape {tuple(predictors[0].shape)} predicts no classes")
        return per_anchor - 5

    @property
    def is_fused(self) -> bool:
        return not any(name.endswith(".running_mean") for name in self.state_dict)

    def build(self, architecture: Architecture) -> YOLO:
        """Return an architecture in the form that the weights have."""
        if not self.is_fused and not any(".ia." in name for name in self.state_dict):
            head = dataclasses.replace(
                architecture.head, implicit=False, auxiliary_channels=None, partial_auxiliary=False
            )
            architecture = architecture.replace(head=head)
        return build_model(architecture, self.num_classes, folded=self.is_fused)

    def differences(self, architecture: Architecture) -> Differences:
        with torch.device("meta"):
            model = self.build(architecture)
        return find_differences(model, self.state_dict)


def import_official(path: str | os.PathLike, architecture: Architecture | None = None) -> tuple[YOLO, list[str]]:
    """Read an official checkpoint, or a plain state dict, into a model in evaluation mode and its class names.

    Nothing in the file is executed. Without an architecture, the one that fits is found. The class
    count comes from the weights, the names from the file where it has them. Half precision is widened.
    ValueError names the file and what is wrong with it.
    """
    weights = read_official(path)
    try:
        architecture = architecture or find_architecture(weights)
        with torch.device("meta"):  # refuse what does not fit before allocating memory
            require_official_fit(weights.build(architecture), weights.state_dict)
        model = weights.build(architecture)
        load_official_state_dict(model, weights.state_dict)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return model.eval(), weights.class_names or [f"class {i}" for i in range(weights.num_classes)]


def find_architecture(weights: OfficialWeights) -> Architecture:
    """Return the architecture that matches the weights' names and shapes; ValueError if there is not exactly one."""
    differences = {}
    for name, architecture in ARCHITECTURES.items():
        try:
            differences[name] = weights.differences(architecture)
        except ValueError:
            continue  # an architecture without official names
    closest = sorted(differences, key=lambda name: len(differences[name]))
    fitting = [name for name in closest if not differences[name]]
    if len(fitting) > 1 and weights.activations:
        fitting = [name for name in fitting if ARCHITECTURES[name].activation in weights.activations]
    if len(fitting) == 1:
        return ARCHITECTURES[fitting[0]]
    if fitting:
        raise ValueError(f"the weights fit {' and '.join(fitting)}; name the architecture")
    counts = ", ".join(f"{name} ({len(differences[name])} differences)" for name in closest[:3])
    raise ValueError(f"the weights fit no architecture; closest are {counts}; {closest[0]}: {differences[closest[0]]}")


def read_official(path: str | os.PathLike) -> OfficialWeights:
    """Find the weights in a file of `torch.save`; ValueError, naming the file, if there are none."""
    content = read_torch_file(path)
    candidates = [content.get(key) for key in WEIGHT_KEYS] if isinstance(content, dict) else []
    try:
        for candidate in (*candidates, content):
            if isinstance(candidate, Record) and "_modules" in candidate.attributes:
                return _from_module(candidate)
            if isinstance(candidate, dict) and any(isinstance(value, Tensor) for value in candidate.values()):
                return _from_state_dict(candidate, content.get("names"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    keys = [key[:50] for key in content if isinstance(key, str)][:10] if isinstance(content, dict) else []
    raise ValueError(
        f"{os.fspath(path)}: no weights in a {type(content).__name__} with keys {keys}; "
        "a module or a state dict, alone or under 'ema', 'model' or 'state_dict', works"
    )


def _from_state_dict(state_dict: dict, class_names: Any) -> OfficialWeights:
    tensors = {str(name): value for name, value in state_dict.items() if isinstance(value, Tensor)}
    return _weights(tensors, class_names, frozenset())


def _from_module(record: Record) -> OfficialWeights:
    """Collect the tensors of a pickled module and of all modules in it, as its `state_dict()` would name them."""
    tensors: dict[str, Tensor] = {}
    activations, names = set(), None
    pending = [("", record)]
    num_modules = 0
    while pending:
        prefix, module = pending.pop()
        num_modules += 1
        if num_modules > MAX_MODULES or prefix.count(".") > MAX_DEPTH:
            raise ValueError(f"more than {MAX_MODULES} modules, or modules {MAX_DEPTH} deep: no official checkpoint")
        attributes = module.attributes
        names = names or attributes.get("names")
        if module.made_by.name in _ACTIVATIONS:
            activations.add(_ACTIVATIONS[module.made_by.name])
        non_persistent = attributes.get("_non_persistent_buffers_set")
        non_persistent = non_persistent if isinstance(non_persistent, set) else set()
        for name, tensor in [*_entries(attributes, "_parameters"), *_entries(attributes, "_buffers")]:
            if isinstance(tensor, Tensor) and name not in non_persistent:
                tensors[f"{prefix}{name}"] = tensor
        for name, child in _entries(attributes, "_modules"):
            if isinstance(child, Record):
                pending.append((f"{prefix}{name}.", child))
    return _weights(tensors, names, frozenset(activations))


def _entries(attributes: Mapping, group: str) -> list[tuple[str, Any]]:
    entries = attributes.get(group)
    if not isinstance(entries, dict):
        return []
    if not all(isinstance(name, str) and len(name) <= MAX_NAME_LENGTH for name in entries):
        raise ValueError(f"a name in {group} that is no string of at most {MAX_NAME_LENGTH} characters")
    return list(entries.items())


def _without_leftovers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fused tensors without implicit vectors, the auxiliary predictors `m2` and their convolutions.

    There is one such convolution per predictor, each a layer right before the detection layer.
    """
    parts = {name: name.split(".") for name in tensors}
    numbers = {name: int(path[1]) if path[0] == "model" and path[1].isdecimal() else -1
               for name, path in parts.items() if len(path) > 2}
    auxiliary = [numbers[name] for name, path in parts.items() if path[2:3] == ["m2"] and path[-1] == "weight"]
    detection = auxiliary[0] if auxiliary else -1
    first = detection - len(auxiliary)
    kept = {}
    for name, path in parts.items():
        is_left = path[2:3] in (["m2"], ["ia"], ["im"]) or auxiliary and first <= numbers.get(name, -1) < detection
        if not is_left:
            moves = auxiliary and numbers.get(name) == detection
            kept[".".join([path[0], str(first), *path[2:]]) if moves else name] = tensors[name]
    return kept


def _weights(tensors: dict[str, Tensor], names: Any, activations: frozenset[str]) -> OfficialWeights:
    """Normalise tensor names, and take the class names if there is one for each class.

    `DataParallel` adds the prefix `module.`; a RepConv that was fused calls its convolution `rbr_reparam`.
    """
    tensors = {
        name.removeprefix("module.").replace(".rbr_reparam.", ".conv."): tensor for name, tensor in tensors.items()
    }
    weights = OfficialWeights(tensors, None, activations)
    if weights.is_fused:
        weights = OfficialWeights(_without_leftovers(tensors), None, activations)
    num_classes = weights.num_classes
    if isinstance(names, dict):
        names = [names.get(label) for label in range(len(names))]
    if not isinstance(names, list | tuple) or len(names) != num_classes:
        return weights
    if not all(isinstance(name, str) for name in names):
        return weights
    return dataclasses.replace(weights, class_names=list(names))
