"""Residual blocks: Darknet's, ResNet's and ResNeXt's, plain or with RepConv (section 5.4.2, figure 7).

Baselines of the paper's Table 1 and the blocks of its Table 5.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from ..architectures.blocks import Activation, Dark, Residual
from .convolution import ConvBlock, conv3x3

RESNEXT_CARDINALITY = 32


class ResidualBlock(nn.Module):
    """1x1 and 3x3 convolutions, with the input added to their output unless `shortcut` is off.

    - dark: 1x1, 3x3 (YOLOv3). Its 3x3 ends at the sum, where planned re-parameterisation rules out RepConv.
    - reversed-dark: 3x3, 1x1 (figure 7): the same cost, and a 3x3 that RepConv may replace.
    - bottleneck: 1x1, 3x3, 1x1 (ResNet); resnext: its 3x3 in 32 groups.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        residual: Residual,
        activation: Activation,
        *,
        rep_conv: bool = False,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut

        def pointwise(in_channels: int, out_channels: int) -> nn.Module:
            return ConvBlock(in_channels, out_channels, activation=activation)

        def dense(in_channels: int, out_channels: int, groups: int = 1) -> nn.Module:
            return conv3x3(in_channels, out_channels, activation, rep_conv=rep_conv, groups=groups)

        if residual == "dark":
            convs = [pointwise(channels, hidden_channels), dense(hidden_channels, channels)]
        elif residual == "reversed-dark":
            convs = [dense(channels, hidden_channels), pointwise(hidden_channels, channels)]
        else:
            groups = math.gcd(hidden_channels, RESNEXT_CARDINALITY) if residual == "resnext" else 1
            convs = [
                pointwise(channels, hidden_channels),
                dense(hidden_channels, hidden_channels, groups),
                pointwise(hidden_channels, channels),
            ]
        self.convs = nn.Sequential(*convs)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x) if self.shortcut else self.convs(x)


class DarkBlocks(nn.Sequential):
    """Residual blocks in sequence."""

    def __init__(self, channels: int, hidden_channels: int, dark: Dark, activation: Activation) -> None:
        super().__init__()
        for _ in range(dark.num_blocks):
            self.append(
                ResidualBlock(channels, hidden_channels, dark.residual, activation, rep_conv=dark.rep_conv)
            )


class ConvSetBlock(nn.Sequential):
    """Alternating 1x1 to `out_channels` and 3x3 to `hidden_channels`, then a final 1x1."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, num_steps: int, activation: Activation
    ) -> None:
        super().__init__()
        for _ in range(num_steps):
            self.append(ConvBlock(in_channels, out_channels, activation=activation))
            self.append(ConvBlock(out_channels, hidden_channels, 3, activation=activation))
            in_channels = hidden_channels
        self.append(ConvBlock(hidden_channels, out_channels, activation=activation))
