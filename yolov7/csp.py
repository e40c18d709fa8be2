"""Cross-stage-partial blocks (CSPNet), as description and as block: YOLOv4-CSP, YOLOR, R50-CSP, X50-CSP."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .blocks import Activation, ConvBlock
from .channels import halves
from .darknet import Residual, ResidualBlock


@dataclass(frozen=True)
class Csp:
    """Shape of a CSP block: one part of the channels goes through residual blocks, the other round them.

    `transition` puts a pointwise convolution after the blocks, before the parts meet. `shared_entry`
    lets both parts begin at one pointwise convolution; such blocks, in the necks, have no shortcuts.
    `residual` and `rep_conv` give the rows of Table 5: RepCSP is ("dark", True), RCSP
    ("reversed-dark", False), RepRCSP ("reversed-dark", True).
    """

    num_blocks: int
    residual: Residual = "dark"
    transition: bool = False
    shared_entry: bool = False
    rep_conv: bool = False
    kind: Literal["csp"] = "csp"

    def deepened(self, depth: float) -> Csp:
        return dataclasses.replace(self, num_blocks=max(1, round(self.num_blocks * depth)))

    def compound_width(self, depth: float) -> float:
        """Two parts meet, however deep one of them is."""
        return 1.0

    def build(self, in_channels: int, hidden_channels: int, out_channels: int, activation: Activation) -> nn.Module:
        return CspBlock(in_channels, hidden_channels, out_channels, self, activation)


class CspBlock(nn.Module):
    """Residual blocks beside a bypass, concatenated and fused."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, csp: Csp, activation: Activation
    ) -> None:
        super().__init__()
        self.shared_entry = csp.shared_entry
        inner_channels = halves(hidden_channels)[0] if csp.residual == "bottleneck" else hidden_channels
        self.entry = ConvBlock(in_channels, hidden_channels, activation=activation)
        bypass_channels = hidden_channels if csp.shared_entry else in_channels
        self.bypass = ConvBlock(bypass_channels, hidden_channels, activation=activation)
        options = {"rep_conv": csp.rep_conv, "shortcut": not csp.shared_entry}
        self.blocks = nn.Sequential()
        for _ in range(csp.num_blocks):
            self.blocks.append(ResidualBlock(hidden_channels, inner_channels, csp.residual, activation, **options))
        if csp.transition:
            self.blocks.append(ConvBlock(hidden_channels, hidden_channels, activation=activation))
        self.fuse = ConvBlock(2 * hidden_channels, out_channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        entered = self.entry(x)
        bypassed = self.bypass(entered if self.shared_entry else x)
        return self.fuse(torch.cat([self.blocks(entered), bypassed], dim=1))
