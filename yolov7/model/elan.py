"""Efficient layer aggregation blocks: ELAN and E-ELAN (section 3.1, figure 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..architectures.blocks import Activation, Elan
from ..architectures.channels import halves
from .convolution import ConvBlock, conv3x3


class ElanBlock(nn.Module):
    """Efficient layer aggregation: every step's output reaches the fusing convolution."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, elan: Elan, activation: Activation
    ) -> None:
        super().__init__()
        step_channels = halves(hidden_channels)[0] if elan.narrow else hidden_channels
        self.bypass = ConvBlock(in_channels, hidden_channels, activation=activation)
        self.entry = ConvBlock(in_channels, hidden_channels, activation=activation)
        convs, channels = [], hidden_channels
        for i in range(elan.num_convs):
            convs.append(conv3x3(channels, step_channels, activation, rep_conv=i in elan.rep_convs))
            channels = step_channels
        self.steps = nn.ModuleList(
            nn.Sequential(*convs[i : i + elan.convs_per_step]) for i in range(0, elan.num_convs, elan.convs_per_step)
        )
        concatenated = 2 * hidden_channels + elan.num_steps * step_channels
        self.fuse = ConvBlock(concatenated, out_channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.bypass(x), self.entry(x)]
        for step in self.steps:
            branches.append(step(branches[-1]))
        return self.fuse(torch.cat(branches[::-1], dim=1))


class ExtendedElanBlock(nn.Module):
    """E-ELAN: two ELAN blocks side by side, merged by their sum.

    It equals group convolution with two groups, shuffled and merged in cardinality.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, elan: Elan, activation: Activation
    ) -> None:
        super().__init__()
        self.first = ElanBlock(in_channels, hidden_channels, out_channels, elan, activation)
        self.second = ElanBlock(in_channels, hidden_channels, out_channels, elan, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)
