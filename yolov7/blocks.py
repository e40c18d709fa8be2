"""The building blocks: convolution, RepConv, ELAN, E-ELAN, downsampling and pyramid pooling.

B images · C channels · H W pixels. Every block maps (B, C_in, H, W) to (B, C_out, H', W').
Sub-modules stand in the order of the published layer lists, so that weights map one to one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .architectures import Activation, Downsample, Elan, PyramidPooling

NORM_EPSILON = 1e-3
NORM_MOMENTUM = 0.03


def make_activation(kind: Activation | None) -> nn.Module:
    """Return the activation module, the identity for None."""
    if kind == "leaky-relu":
        return nn.LeakyReLU(0.1, inplace=True)  # its gradient needs only the sign, which survives in place
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
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class RepConvBlock(nn.Module):
    """Planned re-parameterised convolution, RepConvN (section 4.1): 3x3 plus 1x1, without identity.

    Both branches are linear up to the activation, so they fold into a single 3x3 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, activation: Activation = "silu") -> None:
        super().__init__()
        self.dense = ConvBlock(in_channels, out_channels, 3, activation=None)
        self.pointwise = ConvBlock(in_channels, out_channels, 1, activation=None)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.dense(x) + self.pointwise(x))


class ElanBlock(nn.Module):
    """Efficient layer aggregation (section 3.1): every step's output reaches the fusing convolution."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, elan: Elan, activation: Activation
    ) -> None:
        super().__init__()
        step_channels = hidden_channels // 2 if elan.narrow else hidden_channels
        self.bypass = ConvBlock(in_channels, hidden_channels, activation=activation)
        self.entry = ConvBlock(in_channels, hidden_channels, activation=activation)
        self.steps = nn.ModuleList()
        channels = hidden_channels
        for _ in range(elan.num_steps):
            convs = []
            for _ in range(elan.convs_per_step):
                convs.append(ConvBlock(channels, step_channels, 3, activation=activation))
                channels = step_channels
            self.steps.append(nn.Sequential(*convs))
        concatenated = 2 * hidden_channels + elan.num_steps * step_channels
        self.fuse = ConvBlock(concatenated, out_channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.bypass(x), self.entry(x)]
        for step in self.steps:
            branches.append(step(branches[-1]))
        return self.fuse(torch.cat(branches[::-1], dim=1))


class ExtendedElanBlock(nn.Module):
    """E-ELAN (section 3.1): two ELAN blocks side by side, merged by their sum.

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


def make_elan(
    in_channels: int, hidden_channels: int, out_channels: int, elan: Elan, activation: Activation
) -> ElanBlock | ExtendedElanBlock:
    block = ExtendedElanBlock if elan.extended else ElanBlock
    return block(in_channels, hidden_channels, out_channels, elan, activation)


class PoolConv(nn.Module):
    """Halve the resolution twice over, by max pooling and by strided convolution, and concatenate."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        half = out_channels // 2
        self.pool = nn.MaxPool2d(2)
        self.pooled = ConvBlock(in_channels, half, activation=activation)
        self.entry = ConvBlock(in_channels, half, activation=activation)
        self.strided = ConvBlock(half, half, 3, 2, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(self.pool(x))
        return torch.cat([self.strided(self.entry(x)), pooled], dim=1)


class DownC(nn.Module):
    """PoolConv whose strided branch keeps the full width up to the 3x3 convolution (E6, D6, E6E)."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__()
        half = out_channels // 2
        self.entry = ConvBlock(in_channels, in_channels, activation=activation)
        self.strided = ConvBlock(in_channels, half, 3, 2, activation=activation)
        self.pooled = ConvBlock(in_channels, half, activation=activation)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.strided(self.entry(x)), self.pooled(self.pool(x))], dim=1)


def make_downsample(kind: Downsample, in_channels: int, out_channels: int, activation: Activation) -> nn.Module:
    """Return the block that halves height and width; pooling alone keeps the channels."""
    if kind == "conv":
        return ConvBlock(in_channels, out_channels, 3, 2, activation)
    if kind == "pool-conv":
        return PoolConv(in_channels, out_channels, activation)
    if kind == "down-c":
        return DownC(in_channels, out_channels, activation)
    if in_channels != out_channels:
        raise ValueError(
            f"downsample 'pool' from {in_channels} to {out_channels} channels: pooling keeps the channels; "
            "make both equal or choose 'conv', 'pool-conv' or 'down-c'"
        )
    return nn.MaxPool2d(2)


class MultiScalePool(nn.Module):
    """Max pooling over 5x5, 9x9 and 13x13 windows at stride 1, returned beside the input.

    The wider windows are the 5x5 one repeated, which gives the same values for a third of the reads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        scales = [x]
        for _ in range(3):
            scales.append(self.pool(scales[-1]))
        return scales


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
    """The same idea with pointwise convolutions only, for the tiny models."""

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
    block = CspPyramidPooling if kind == "csp" else LightCspPyramidPooling
    return block(in_channels, out_channels, activation)


class SpaceToDepth(nn.Module):
    """Fold each 2x2 patch of pixels into channels: (B, C, H, W) to (B, 4C, H/2, W/2)."""

    def forward(self, x: Tensor) -> Tensor:
        columns = [x[..., ::2], x[..., 1::2]]
        return torch.cat([part for column in columns for part in (column[..., ::2, :], column[..., 1::2, :])], dim=1)
