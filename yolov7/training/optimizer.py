"""The optimizer and its parameter groups."""

import torch
from torch import nn

from .schedule import Schedule

DECAY_BATCH_SIZE = 64
"""Images per update for which `OptimizerConfig.weight_decay` is given: the published recipes' reference batch."""


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


def scaled_weight_decay(weight_decay: float, batch_size: int) -> float:
    """Decay in proportion to the images of one update, when batches are accumulated up to about 64 images.

    So 16 and 64 images get the decay itself, 128 twice and 256 four times as much. It depends on the batch alone,
    whatever the job accumulates to (`nominal_batch_size`), as in the reference implementation.
    """
    images_per_update = batch_size * max(1, round(DECAY_BATCH_SIZE / batch_size))
    return weight_decay * images_per_update / DECAY_BATCH_SIZE


def build_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimizer over the three parameter groups; convolution weights have the scaled decay."""
    config = schedule.config
    decay = scaled_weight_decay(config.weight_decay, schedule.batch_size)
    groups = [
        {"params": parameters, "role": role, "weight_decay": decay if role == "weight" else 0.0}
        for role, parameters in parameter_groups(model).items() if parameters
    ]
    if config.algorithm == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True, fused=True)
    adam = torch.optim.AdamW if config.algorithm == "adamw" else torch.optim.Adam
    return adam(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)
