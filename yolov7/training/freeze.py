"""Frozen layers: transfer learning that trains only a part of a model.

A frozen module's parameters need no gradient, so no optimizer holds them, and its batch statistics are fixed.
"""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def freeze(model: nn.Module, names: Sequence[str]) -> int:
    """Freeze the modules ``names`` (``backbone``, ``backbone.stages.0``) recursively; return the number of parameters.

    ValueError if a module of that name does not exist, or if nothing would be left to train.
    """
    check_frozen(model, names)
    frozen = [parameter for name in names for parameter in model.get_submodule(name).parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return sum(parameter.numel() for parameter in {id(parameter): parameter for parameter in frozen}.values())


def check_frozen(model: nn.Module, names: Sequence[str]) -> None:
    """ValueError unless ``names`` are modules of ``model`` and leave something to train."""
    modules = {name: module for name, module in model.named_modules() if name and list(module.parameters())}
    for name in names:
        if name not in modules:
            parent = name.rpartition(".")[0]
            while parent and parent not in modules:
                parent = parent.rpartition(".")[0]
            choices = ", ".join(known for known in modules if known.rpartition(".")[0] == parent)
            raise ValueError(f"model.freeze: '{name}' is no module of this architecture; choose among {choices}")
    frozen = {id(parameter) for name in names for parameter in modules[name].parameters()}
    if all(id(parameter) in frozen for parameter in model.parameters()):
        raise ValueError(f"model.freeze: {', '.join(names)} leave nothing to train; freeze less")


def train_mode(model: nn.Module) -> None:
    """Training mode, except for frozen batch norms, which keep their statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
            module.eval()
