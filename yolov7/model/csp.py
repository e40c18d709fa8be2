"""Cross-stage-partial blocks (CSPNet) of YOLOv4-CSP, YOLOR, R50-CSP and X50-CSP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..architectures.blocks import Activation, Csp
from ..architectures.channels import halves
from .convolution import ConvBlock
from .darknet import ResidualBlock


class CspBlock(nn.Module):
    """Residual blocks in parallel with a bypass, concatenated and fused."""

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
