"""Spatial pyramid pooling: one feature map pooled over windows of several sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..architectures.blocks import Activation, PyramidPooling
from .convolution import ConvBlock
from .darknet import ConvSetBlock


class MultiScalePool(nn.Module):
    """Max pooling over 5x5, 9x9 and 13x13 windows at stride 1, returned together with the input.

    The wider windows repeat the 5x5 pooling, which gives the same values for a third of the reads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        scales = [x]
        for _ in range(3):
            scales.append(self.pool(scales[-1]))
        return scales


class SpatialPyramidPooling(nn.Module):
    """The scales of one map, concatenated and fused (SPP)."""

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        self.pools = MultiScalePool()
        self.fuse = ConvBlock(4 * channels, channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat(self.pools(x), dim=1))


class CspPyramidPooling(nn.Module):
    """Spatial pyramid pooling inside a cross-stage-partial block (SPPCSPC)."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        hidden = out_channels
        self.entry = ConvBlock(in_channels, hidden, activation=activation)
        self.bypass = ConvBlock(in_channels, hidden, activation=activation)
        self.before_pool = nn.Sequential(
            ConvBlock(hidden, hidden, 3, activation=activation), ConvBlock(hidden, hidden, activation=activation)
        )
        self.after_pool = nn.Sequential(
            ConvBlock(4 * hidden, hidden, activation=activation), ConvBlock(hidden, hidden, 3, activation=activation)
        )
        self.fuse = ConvBlock(2 * hidden, out_channels, activation=activation)
        self.pools = MultiScalePool()

    def forward(self, x: Tensor) -> Tensor:
        scales = self.pools(self.before_pool(self.entry(x)))
        pooled = self.after_pool(torch.cat(scales, dim=1))
        return self.fuse(torch.cat([pooled, self.bypass(x)], dim=1))


class LightCspPyramidPooling(nn.Module):
    """SPPCSPC with pointwise convolutions only, for the tiny models."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        hidden = out_channels
        self.bypass = ConvBlock(in_channels, hidden, activation=activation)
        self.entry = ConvBlock(in_channels, hidden, activation=activation)
        self.after_pool = ConvBlock(4 * hidden, hidden, activation=activation)
        self.fuse = ConvBlock(2 * hidden, out_channels, activation=activation)
        self.pools = MultiScalePool()

    def forward(self, x: Tensor) -> Tensor:
        scales = self.pools(self.entry(x))
        pooled = self.after_pool(torch.cat(scales[::-1], dim=1))
        return self.fuse(torch.cat([pooled, self.bypass(x)], dim=1))


def make_pyramid_pooling(
    kind: PyramidPooling, in_channels: int, out_channels: int, activation: Activation
) -> nn.Module:
    """Return the block between backbone and neck; YOLOv3's is its set of convolutions, with or without SPP inside."""
    if kind == "csp":
        return CspPyramidPooling(in_channels, out_channels, activation)
    if kind == "csp-light":
        return LightCspPyramidPooling(in_channels, out_channels, activation)
    convs = ConvSetBlock(in_channels, 2 * out_channels, out_channels, 2, activation)
    if kind == "spp":
        convs.insert(3, SpatialPyramidPooling(out_channels, activation))  # after the second 1x1
    return convs
