"""The optimizer and its parameter groups."""

import torch
from torch import nn

from .schedule import Schedule


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by role: ``weight`` (decayed), ``scale`` (norms and implicit vectors) and ``bias``."""
    groups: dict[str, list[nn.Parameter]] = {"weight": [], "scale": [], "bias": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith("bias"):
            groups["bias"].append(parameter)
        elif parameter.ndim == 4 and name.endswith("weight"):
            groups["weight"].append(parameter)
        else:
            groups["scale"].append(parameter)
    return groups


def build_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimizer over the three parameter groups, its decay scaled to the images per update."""
    config = schedule.config
    images_per_update = schedule.batch_size * max(1, round(schedule.nominal_batch_size / schedule.batch_size))
    decay = config.weight_decay * images_per_update / schedule.nominal_batch_size
    groups = [
        {"params": parameters, "role": role, "weight_decay": decay if role == "weight" else 0.0}
        for role, parameters in parameter_groups(model).items() if parameters
    ]
    if config.algorithm == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True, fused=True)
    adam = torch.optim.AdamW if config.algorithm == "adamw" else torch.optim.Adam
    return adam(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)
