"""The layers that every part of the detector shares: convolution, RepConv, downsampling.

B images · C channels · H W pixels. Every block maps (B, C_in, H, W) to (B, C_out, H', W').
Submodules follow the order of the published layer lists, so that weights map one to one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..architectures.blocks import Activation, Downsample
from ..architectures.channels import halves

NORM_EPSILON = 1e-3
NORM_MOMENTUM = 0.03


def make_activation(kind: Activation | None) -> nn.Module:
    """Return the activation module, the identity for None."""
    if kind == "leaky-relu":
        return nn.LeakyReLU(0.1, inplace=True)  # its gradient needs only the sign, which the output keeps
    return nn.SiLU() if kind == "silu" else nn.Identity()


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, activation; folding leaves a convolution with bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        activation: Activation | None = "silu",
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class RepConvBlock(nn.Module):
    """Planned re-parameterised convolution, RepConvN (section 4.1): 3x3 plus 1x1, without identity.

    The identity branch of RepVGG would duplicate a residual or a concatenation around the
    convolution. Both branches are linear up to the activation, so they fold into a
    single 3x3 convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, activation: Activation = "silu", groups: int = 1
    ) -> None:
        super().__init__()
        self.dense = ConvBlock(in_channels, out_channels, 3, activation=None, groups=groups)
        self.pointwise = ConvBlock(in_channels, out_channels, 1, activation=None, groups=groups)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.dense(x) + self.pointwise(x))


def conv3x3(
    in_channels: int, out_channels: int, activation: Activation, *, rep_conv: bool = False, groups: int = 1
) -> ConvBlock | RepConvBlock:
    """Return a 3x3 convolution of stride 1, or the RepConv that replaces it during training."""
    if rep_conv:
        return RepConvBlock(in_channels, out_channels, activation, groups)
    return ConvBlock(in_channels, out_channels, 3, activation=activation, groups=groups)


class PoolConv(nn.Module):
    """Halve the resolution in two branches, max pooling and strided convolution, and concatenate them."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        strided, pooled = halves(out_channels)
        self.pool = nn.MaxPool2d(2)
        self.pooled = ConvBlock(in_channels, pooled, activation=activation)
        self.entry = ConvBlock(in_channels, strided, activation=activation)
        self.strided = ConvBlock(strided, strided, 3, 2, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(self.pool(x))
        return torch.cat([self.strided(self.entry(x)), pooled], dim=1)


class DownC(nn.Module):
    """PoolConv whose strided branch keeps the full width up to the 3x3 convolution (E6, D6, E6E)."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        strided, pooled = halves(out_channels)
        self.entry = ConvBlock(in_channels, in_channels, activation=activation)
        self.strided = ConvBlock(in_channels, strided, 3, 2, activation=activation)
        self.pooled = ConvBlock(in_channels, pooled, activation=activation)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.strided(self.entry(x)), self.pooled(self.pool(x))], dim=1)


class PeleeDown(nn.Module):
    """The second half of PeleeNet's stem: parallel strided convolution and max pooling, fused (r50-csp, x50-csp)."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        self.entry = ConvBlock(in_channels, in_channels, activation=activation)
        self.strided = ConvBlock(in_channels, in_channels, 3, 2, activation=activation)
        self.pool = nn.MaxPool2d(2)
        self.fuse = ConvBlock(2 * in_channels, out_channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([self.strided(self.entry(x)), self.pool(x)], dim=1))


def make_downsample(kind: Downsample, in_channels: int, out_channels: int, activation: Activation) -> nn.Module:
    """Return the block that halves height and width; pooling alone keeps the channels."""
    if kind == "conv":
        return ConvBlock(in_channels, out_channels, 3, 2, activation)
    if kind != "pool":
        block = {"pool-conv": PoolConv, "down-c": DownC, "pelee": PeleeDown}[kind]
        return block(in_channels, out_channels, activation)
    if in_channels != out_channels:
        raise ValueError(
            f"downsample 'pool' from {in_channels} to {out_channels} channels: pooling keeps the channels; "
            "make both equal or choose 'conv', 'pool-conv' or 'down-c'"
        )
    return nn.MaxPool2d(2)


class SpaceToDepth(nn.Module):
    """Fold each 2x2 patch of pixels into channels: (B, C, H, W) to (B, 4C, H/2, W/2)."""

    def forward(self, x: Tensor) -> Tensor:
        columns = [x[..., ::2], x[..., 1::2]]
        return torch.cat([part for column in columns for part in (column[..., ::2, :], column[..., 1::2, :])], dim=1)
