"""The detection head: one convolution and one prediction per level, for lead and auxiliary head.

B images · L levels · A anchors · C classes · H W cells. A prediction vector is x, y, w, h (raw),
objectness, then C class logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..architectures.language import Architecture
from .convolution import ConvBlock, conv3x3

NUM_BOX_AND_OBJECTNESS = 5


class ImplicitConv2d(nn.Conv2d):
    """Pointwise convolution with implicit knowledge (section 4.3, from YOLOR).

    A learned vector is added to the input and another multiplies the output: m * (W (x + a) + b).
    All of it is linear, so it is applied to the weights, not to the feature maps.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Literal[1] = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.addition = nn.Parameter(torch.empty(1, in_channels, 1, 1).normal_(0.0, 0.02))
        self.multiplication = nn.Parameter(torch.empty(1, out_channels, 1, 1).normal_(1.0, 0.02))

    def folded_weights(self) -> tuple[Tensor, Tensor]:
        """Return weight (C_out, C_in, 1, 1) and bias (C_out,) of the plain convolution that it equals."""
        scale = self.multiplication.flatten()
        shift = (self.weight * self.addition).sum(dim=(1, 2, 3))  # not a matmul: autocast would round it
        return self.weight * scale[:, None, None, None], (self.bias + shift) * scale

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.folded_weights())


class DetectionHead(nn.Module):
    """Neck features to raw outputs (B, A, H, W, 5+C) per level, lead levels first, then auxiliary."""

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        head, in_channels = architecture.head, architecture.neck.channels
        self.num_anchors = architecture.num_anchors
        self.num_outputs = NUM_BOX_AND_OBJECTNESS + num_classes
        auxiliary_channels = head.auxiliary_channels or ()
        predictions = self.num_anchors * self.num_outputs
        activation = architecture.activation
        lead_predictor = ImplicitConv2d if head.implicit else nn.Conv2d
        self.lead_convs = nn.ModuleList(
            conv3x3(channels, out_channels, activation, rep_conv=head.conv == "rep-conv")
            for channels, out_channels in zip(in_channels, head.channels)
        )
        self.auxiliary_convs = nn.ModuleList(
            ConvBlock(channels, out_channels, 3, activation=activation)
            for channels, out_channels in zip(in_channels, auxiliary_channels)
        )
        self.lead_predictors = nn.ModuleList(lead_predictor(c, predictions, 1) for c in head.channels)
        self.auxiliary_predictors = nn.ModuleList(nn.Conv2d(c, predictions, 1) for c in auxiliary_channels)
        self.reset_priors(architecture.strides)

    @torch.no_grad()
    def reset_priors(self, strides: Sequence[int]) -> None:
        """Initialise the biases to the scores of an average image, so that the first losses do not explode.

        Objectness: 8 objects in a 640 px image; class: 0.6 spread over the classes (RetinaNet's prior).
        """
        num_classes = self.num_outputs - NUM_BOX_AND_OBJECTNESS
        for predictors in (self.lead_predictors, self.auxiliary_predictors):
            for predictor, stride in zip(predictors, strides):
                bias = predictor.bias.view(self.num_anchors, self.num_outputs)
                bias.zero_()
                bias[:, 4] = math.log(8 / (640 / stride) ** 2)
                bias[:, 5:] = math.log(0.6 / (num_classes - 0.99))

    def lead(self, features: list[Tensor]) -> list[Tensor]:
        return self._predict(features, self.lead_convs, self.lead_predictors)

    def auxiliary(self, features: list[Tensor]) -> list[Tensor]:
        return self._predict(features, self.auxiliary_convs, self.auxiliary_predictors)

    def _predict(self, features: list[Tensor], convs: nn.ModuleList, predictors: nn.ModuleList) -> list[Tensor]:
        """Return one view (B, A, H, W, 5+C) per level, without a copy (so not contiguous in general)."""
        outputs = []
        for feature, conv, predictor in zip(features, convs, predictors):
            output = predictor(conv(feature))
            batch, _, height, width = output.shape
            split = output.view(batch, self.num_anchors, self.num_outputs, height, width)
            outputs.append(split.permute(0, 1, 3, 4, 2))
        return outputs

    def forward(self, lead: list[Tensor], auxiliary: list[Tensor]) -> list[Tensor]:
        return self.lead(lead) + self.auxiliary(auxiliary)
