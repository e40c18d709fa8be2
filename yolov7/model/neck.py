"""The neck: pyramid pooling, a top-down path and a bottom-up path (PANet) of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..architectures.blocks import Activation
from ..architectures.language import Architecture, Neck
from .block import build_block
from .convolution import ConvBlock, make_downsample
from .pooling import make_pyramid_pooling


class TopDownStep(nn.Module):
    """Upsample a coarse map to the next finer level and aggregate it with the backbone's map there."""

    def __init__(self, architecture: Architecture, level: int, backbone_channels: int) -> None:
        super().__init__()
        neck, activation = architecture.neck, architecture.activation
        channels = lateral_channels = neck.channels[level]
        self.partial_auxiliary = architecture.head.partial_auxiliary
        self.reduce = ConvBlock(neck.channels[level + 1], channels, activation=activation)
        if neck.bottom_up:
            self.lateral: nn.Module = ConvBlock(backbone_channels, channels, activation=activation)
        else:
            self.lateral, lateral_channels = nn.Identity(), backbone_channels
        self.block = build_block(
            neck.block, lateral_channels + channels, neck.hidden_channels[level], channels, activation
        )

    def forward(self, coarse: Tensor, lateral: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level's map and the auxiliary head's input.

        Both are the same unless the auxiliary head is partial: then its input is the second half of
        the extended block alone (section 5.4.3, Table 8).
        """
        upsampled = F.interpolate(self.reduce(coarse), scale_factor=2, mode="nearest")
        merged = torch.cat([self.lateral(lateral), upsampled], dim=1)
        if self.partial_auxiliary:
            second = self.block.second(merged)
            return self.block.first(merged) + second, second
        fused = self.block(merged)
        return fused, fused


class BottomUpStep(nn.Module):
    """Downsample a fine map to the next coarser level and aggregate it with the top-down map there."""

    def __init__(self, neck: Neck, level: int, activation: Activation) -> None:
        super().__init__()
        channels = neck.channels[level]
        self.downsample = make_downsample(neck.downsample, neck.channels[level - 1], channels, activation)
        self.block = build_block(neck.block, 2 * channels, neck.hidden_channels[level], channels, activation)

    def forward(self, fine: Tensor, skip: Tensor) -> Tensor:
        return self.block(torch.cat([self.downsample(fine), skip], dim=1))


class PyramidNeck(nn.Module):
    """Backbone features to lead features and auxiliary features, each fine to coarse.

    The auxiliary head takes the maps between the two paths: after the top-down path, before the
    bottom-up one. Without a bottom-up path both heads take the same maps.
    """

    def __init__(self, architecture: Architecture, backbone_channels: Sequence[int]) -> None:
        super().__init__()
        neck, activation = architecture.neck, architecture.activation
        num_levels = architecture.num_levels
        self.pyramid_pooling = make_pyramid_pooling(
            neck.pyramid_pooling, backbone_channels[-1], neck.channels[-1], activation
        )
        self.top_down = nn.ModuleList(
            TopDownStep(architecture, level, backbone_channels[level]) for level in reversed(range(num_levels - 1))
        )
        levels_up = range(1, num_levels) if neck.bottom_up else ()
        self.bottom_up = nn.ModuleList(BottomUpStep(neck, level, activation) for level in levels_up)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        coarse = self.pyramid_pooling(features[-1])
        top_down_maps, auxiliary = [coarse], [coarse]
        for step, lateral in zip(self.top_down, reversed(features[:-1]), strict=True):
            fused, auxiliary_map = step(top_down_maps[-1], lateral)
            top_down_maps.append(fused)
            auxiliary.append(auxiliary_map)
        lead = top_down_maps[::-1]
        for level, step in enumerate(self.bottom_up, start=1):
            lead[level] = step(lead[level - 1], lead[level])
        return lead, auxiliary[::-1]
