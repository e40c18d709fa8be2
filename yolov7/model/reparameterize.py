"""Re-parameterisation: the trained model as plain convolutions, with the same outputs (sections 4.1, 4.3).

Batch normalisation folds into its convolution, RepConv into one 3x3 convolution, implicit knowledge
into the predicting convolution; the auxiliary head, which only training needs, is left out.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .convolution import ConvBlock, RepConvBlock
from .head import ImplicitConv2d

Model = TypeVar("Model", bound=nn.Module)


def reparameterize(model: Model) -> Model:
    """Return a folded copy in evaluation mode, without gradients; the model itself is left as it is."""
    folded = fuse(model)
    folded.head.auxiliary_convs = nn.ModuleList()
    folded.head.auxiliary_predictors = nn.ModuleList()
    for level, predictor in enumerate(folded.head.lead_predictors):
        if isinstance(predictor, ImplicitConv2d):
            folded.head.lead_predictors[level] = fold_implicit(predictor)
    folded.is_folded = True
    return folded


def fuse(model: Model) -> Model:
    """Return a copy in which only batch normalisation and RepConv are folded: both heads, with implicit knowledge.

    Published parameter counts often refer to this intermediate form ("after fusing").
    """
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    _fuse_children(fused)
    return fused


def _fuse_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, ConvBlock):
            fold_conv_block(child)
        elif isinstance(child, RepConvBlock):
            setattr(module, name, fold_rep_conv(child))
        else:
            _fuse_children(child)


def folded_weights(block: ConvBlock) -> tuple[Tensor, Tensor]:
    """Return weight and bias, in float64, of the convolution that equals a ConvBlock before activation."""
    weight = block.conv.weight.double()
    if not isinstance(block.norm, nn.BatchNorm2d):
        return weight, block.conv.bias.double()
    norm = block.norm
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return weight * scale[:, None, None, None], norm.bias.double() - norm.running_mean.double() * scale


def fold_conv_block(block: ConvBlock) -> None:
    """Fold batch normalisation into the convolution, in place."""
    _set_weights(block.conv, *folded_weights(block))
    block.norm = nn.Identity()


def fold_rep_conv(block: RepConvBlock) -> ConvBlock:
    """Add the 1x1 kernel to the centre of the 3x3 kernel: one convolution replaces two."""
    dense_weight, dense_bias = folded_weights(block.dense)
    pointwise_weight, pointwise_bias = folded_weights(block.pointwise)
    folded = block.dense
    _set_weights(folded.conv, dense_weight + F.pad(pointwise_weight, (1, 1, 1, 1)), dense_bias + pointwise_bias)
    folded.norm = nn.Identity()
    folded.activation = block.activation
    return folded


def fold_implicit(conv: ImplicitConv2d) -> nn.Conv2d:
    """Fold the implicit vectors into the weights of a plain convolution."""
    folded = nn.utils.skip_init(
        nn.Conv2d, conv.in_channels, conv.out_channels, 1, device=conv.weight.device, dtype=conv.weight.dtype
    ).requires_grad_(False)
    _set_weights(folded, *copy.deepcopy(conv).double().folded_weights())
    return folded


def _set_weights(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
