"""The backbone: stem, then stages that each halve the resolution and aggregate in one block."""

from __future__ import annotations

from torch import Tensor, nn

from ..architectures.blocks import Activation
from ..architectures.language import Architecture, Stage, Stem
from .block import build_block
from .convolution import ConvBlock, SpaceToDepth, make_downsample


class StemBlock(nn.Sequential):
    """The first convolutions: (B, 3, H, W) to (B, C, H / stride, W / stride)."""

    def __init__(self, stem: Stem, activation: Activation, in_channels: int = 3) -> None:
        super().__init__()
        if stem.space_to_depth:
            self.append(SpaceToDepth())
            in_channels *= 4
        for channels, stride in zip(stem.channels, stem.conv_strides, strict=True):
            self.append(ConvBlock(in_channels, channels, 3, stride, activation))
            in_channels = channels


class BackboneStage(nn.Module):
    """Downsampling and one block: (B, C, H, W) to (B, C', H/2, W/2)."""

    def __init__(self, in_channels: int, stage: Stage, activation: Activation) -> None:
        super().__init__()
        self.downsample = make_downsample(stage.downsample, in_channels, stage.in_channels, activation)
        self.block = build_block(stage.block, stage.in_channels, stage.hidden_channels, stage.out_channels, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.downsample(x))


class Backbone(nn.Module):
    """Images to one feature map per level, fine to coarse."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.num_levels = architecture.num_levels
        self.stem = StemBlock(architecture.stem, architecture.activation)
        self.stages = nn.ModuleList()
        channels = architecture.stem.channels[-1]
        for stage in architecture.stages:
            self.stages.append(BackboneStage(channels, stage, architecture.activation))
            channels = stage.out_channels
        self.out_channels = tuple(stage.out_channels for stage in architecture.stages[-self.num_levels :])

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[-self.num_levels :]
