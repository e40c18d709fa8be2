"""The neck: pyramid pooling, a top-down path and a bottom-up path (PANet) of ELAN blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .architectures import Activation, Architecture, Neck
from .blocks import ConvBlock, ExtendedElanBlock, make_downsample, make_elan, make_pyramid_pooling


class TopDownStep(nn.Module):
    """Bring a coarse map to the next finer level and aggregate it with the backbone's map there."""

    def __init__(self, neck: Neck, level: int, backbone_channels: int, activation: Activation) -> None:
        super().__init__()
        channels = neck.channels[level]
        self.reduce = ConvBlock(neck.channels[level + 1], channels, activation=activation)
        self.lateral = ConvBlock(backbone_channels, channels, activation=activation)
        self.elan = make_elan(2 * channels, neck.hidden_channels[level], channels, neck.elan, activation)

    def forward(self, coarse: Tensor, lateral: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level's map, and what the auxiliary head sees of it.

        Both are the same except in an extended block, where the auxiliary head hangs on the second
        half alone: the partial auxiliary head (section 5.4.3, Table 8).
        """
        upsampled = F.interpolate(self.reduce(coarse), scale_factor=2, mode="nearest")
        merged = torch.cat([self.lateral(lateral), upsampled], dim=1)
        if isinstance(self.elan, ExtendedElanBlock):
            second = self.elan.second(merged)
            return self.elan.first(merged) + second, second
        fused = self.elan(merged)
        return fused, fused


class BottomUpStep(nn.Module):
    """Bring a fine map to the next coarser level and aggregate it with the top-down map there."""

    def __init__(self, neck: Neck, level: int, activation: Activation) -> None:
        super().__init__()
        channels = neck.channels[level]
        self.downsample = make_downsample(neck.downsample, neck.channels[level - 1], channels, activation)
        self.elan = make_elan(2 * channels, neck.hidden_channels[level], channels, neck.elan, activation)

    def forward(self, fine: Tensor, skip: Tensor) -> Tensor:
        return self.elan(torch.cat([self.downsample(fine), skip], dim=1))


class PyramidNeck(nn.Module):
    """Backbone features to lead features and auxiliary features, each fine to coarse.

    The auxiliary head looks at the pyramid in the middle: after the top-down path, before the
    bottom-up one.
    """

    def __init__(self, architecture: Architecture, backbone_channels: Sequence[int]) -> None:
        super().__init__()
        neck, activation = architecture.neck, architecture.activation
        num_levels = architecture.num_levels
        self.pyramid_pooling = make_pyramid_pooling(
            neck.pyramid_pooling, backbone_channels[-1], neck.channels[-1], activation
        )
        self.top_down = nn.ModuleList(
            TopDownStep(neck, level, backbone_channels[level], activation) for level in reversed(range(num_levels - 1))
        )
        self.bottom_up = nn.ModuleList(BottomUpStep(neck, level, activation) for level in range(1, num_levels))

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        coarse = self.pyramid_pooling(features[-1])
        descending, auxiliary = [coarse], [coarse]
        for step, lateral in zip(self.top_down, reversed(features[:-1]), strict=True):
            fused, seen = step(descending[-1], lateral)
            descending.append(fused)
            auxiliary.append(seen)
        finest, *skips = reversed(descending)
        lead = [finest]
        for step, skip in zip(self.bottom_up, skips, strict=True):
            lead.append(step(lead[-1], skip))
        return lead, auxiliary[::-1]
