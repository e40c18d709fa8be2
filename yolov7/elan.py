"""Efficient layer aggregation: ELAN and E-ELAN, as description and as block (section 3.1, figure 2)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .blocks import Activation, ConvBlock, conv3x3
from .channels import halves


@dataclass(frozen=True)
class Elan:
    """Shape of an ELAN block.

    Two pointwise branches enter; `num_steps` steps of `convs_per_step` 3x3 convolutions follow the
    second one; all are concatenated and fused by one pointwise convolution. `narrow` halves the
    channels of the steps; `extended` sums two such blocks in parallel (E-ELAN, two groups).
    `rep_convs` numbers the 3x3 convolutions, from 0 at the entry, that are RepConv (section 4.1).
    """

    num_steps: int
    convs_per_step: int
    narrow: bool = False
    extended: bool = False
    rep_convs: tuple[int, ...] = ()
    kind: Literal["elan"] = "elan"

    def __post_init__(self) -> None:
        outside = [i for i in self.rep_convs if not 0 <= i < self.num_convs]
        if outside:
            raise ValueError(
                f"rep_convs {outside}: an ELAN of {self.num_convs} convolutions has 0 to {self.num_convs - 1}"
            )

    @property
    def num_convs(self) -> int:
        return self.num_steps * self.convs_per_step

    def deepened(self, depth: float) -> Elan:
        """Return a copy with more or fewer steps; RepConvs beyond the last one go with their steps."""
        num_steps = max(1, round(self.num_steps * depth))
        kept = tuple(i for i in self.rep_convs if i < num_steps * self.convs_per_step)
        return dataclasses.replace(self, num_steps=num_steps, rep_convs=kept)

    def compound_width(self, depth: float) -> float:
        """The factor by which the concatenation grows with depth: (branches after) / (branches before)."""
        num_pointwise = 2
        return (num_pointwise + self.num_steps * depth) / (num_pointwise + self.num_steps)

    def build(self, in_channels: int, hidden_channels: int, out_channels: int, activation: Activation) -> nn.Module:
        block = ExtendedElanBlock if self.extended else ElanBlock
        return block(in_channels, hidden_channels, out_channels, self, activation)


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
