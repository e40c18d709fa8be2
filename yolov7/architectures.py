"""The YOLOv7 family as data: frozen dataclasses and one scaling rule.

Paper: arXiv:2207.02696, section 3.2 (model scaling for concatenation-based models).
Channel counts are absolute; feature levels are listed from fine (small stride) to coarse.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from .plain import from_plain

Activation = Literal["silu", "leaky-relu"]
Downsample = Literal["conv", "pool", "pool-conv", "down-c"]
PyramidPooling = Literal["csp", "csp-light"]
HeadConv = Literal["conv", "rep-conv"]
Anchors = tuple[tuple[tuple[float, float], ...], ...]

CHANNEL_MULTIPLE = 8


def scaled_channels(channels: int, factor: float) -> int:
    """Scale a channel count, rounded up to a multiple of 8 (what hardware multiplies without waste)."""
    slack = 1e-6  # 1.1 * 320 must not become 360 because of the last bit
    return max(1, math.ceil(channels * factor / CHANNEL_MULTIPLE - slack)) * CHANNEL_MULTIPLE


@dataclass(frozen=True)
class Elan:
    """Shape of an efficient layer aggregation network block (section 3.1, figure 2).

    Two pointwise branches enter; `num_steps` steps of `convs_per_step` 3x3 convolutions follow the
    second one; all are concatenated and fused by one pointwise convolution. `narrow` halves the
    channels of the steps; `extended` sums two such blocks in parallel (E-ELAN, two groups).
    """

    num_steps: int
    convs_per_step: int
    narrow: bool = False
    extended: bool = False

    def deepened(self, depth: float) -> Elan:
        return dataclasses.replace(self, num_steps=max(1, round(self.num_steps * depth)))

    def compound_width(self, depth: float) -> float:
        """The factor by which the concatenation grows with depth: (branches after) / (branches before)."""
        num_pointwise = 2
        return (num_pointwise + self.num_steps * depth) / (num_pointwise + self.num_steps)


@dataclass(frozen=True)
class Stem:
    """The first 3x3 convolutions; `space_to_depth` folds 2x2 pixels into channels before them."""

    channels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    space_to_depth: bool = False

    @property
    def stride(self) -> int:
        return math.prod(self.conv_strides) * (2 if self.space_to_depth else 1)

    def scaled(self, width: float) -> Stem:
        return dataclasses.replace(self, channels=_scaled_all(self.channels, width))


@dataclass(frozen=True)
class Stage:
    """One backbone stage: halve the resolution to `in_channels`, then one ELAN block."""

    downsample: Downsample
    in_channels: int
    hidden_channels: int
    out_channels: int

    def scaled(self, width: float, hidden_width: float) -> Stage:
        return dataclasses.replace(
            self,
            in_channels=scaled_channels(self.in_channels, width),
            hidden_channels=scaled_channels(self.hidden_channels, hidden_width),
            out_channels=scaled_channels(self.out_channels, width),
        )


@dataclass(frozen=True)
class Neck:
    """Spatial pyramid pooling, then a path-aggregation pyramid of ELAN blocks (one width per level)."""

    pyramid_pooling: PyramidPooling
    downsample: Downsample
    elan: Elan
    channels: tuple[int, ...]
    hidden_channels: tuple[int, ...]

    def scaled(self, depth: float, width: float, hidden_width: float) -> Neck:
        return dataclasses.replace(
            self,
            elan=self.elan.deepened(depth),
            channels=_scaled_all(self.channels, width),
            hidden_channels=_scaled_all(self.hidden_channels, hidden_width),
        )


@dataclass(frozen=True)
class Head:
    """The last 3x3 convolution of each level, for the lead head and, where given, the auxiliary one."""

    conv: HeadConv
    channels: tuple[int, ...]
    auxiliary_channels: tuple[int, ...] | None = None

    def scaled(self, width: float) -> Head:
        auxiliary = self.auxiliary_channels
        return dataclasses.replace(
            self,
            channels=_scaled_all(self.channels, width),
            auxiliary_channels=None if auxiliary is None else _scaled_all(auxiliary, width),
        )


@dataclass(frozen=True)
class Architecture:
    """Everything that the builder needs; `anchors_px` is (L, A, 2) width and height in pixels."""

    name: str
    activation: Activation
    stem: Stem
    elan: Elan
    stages: tuple[Stage, ...]
    neck: Neck
    head: Head
    anchors_px: Anchors
    default_image_size_px: int = 640

    def __post_init__(self) -> None:
        per_level = {
            "anchors_px": self.anchors_px,
            "neck.hidden_channels": self.neck.hidden_channels,
            "head.channels": self.head.channels,
            "head.auxiliary_channels": self.head.auxiliary_channels,
        }
        for field, value in per_level.items():
            if value is not None and len(value) != len(self.neck.channels):
                raise ValueError(
                    f"architecture {self.name}: {field} has {len(value)} levels; "
                    f"neck.channels has {len(self.neck.channels)}, give one entry per level"
                )
        if len(self.stages) < self.num_levels:
            raise ValueError(
                f"architecture {self.name}: {len(self.stages)} stages cannot feed "
                f"{self.num_levels} levels; give at least one stage per level"
            )

    @property
    def num_levels(self) -> int:
        return len(self.neck.channels)

    @property
    def num_anchors(self) -> int:
        return len(self.anchors_px[0])

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level, fine to coarse."""
        per_stage = [self.stem.stride * 2 ** (i + 1) for i in range(len(self.stages))]
        return tuple(per_stage[-self.num_levels :])

    @property
    def has_auxiliary(self) -> bool:
        return self.head.auxiliary_channels is not None

    def replace(self, **changes: Any) -> Architecture:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def scaled(self, depth: float | None = None, width: float | None = None) -> Architecture:
        """Scale depth and width (section 3.2).

        `depth` alone is the compound scaling: blocks get deeper, their hidden channels stay, and all
        that lies between blocks widens as their concatenation does. `width` widens every channel
        instead; `scaled(depth=d, width=1)` and `scaled(width=w)` are the depth-only and width-only
        rows of Table 3. Valid for depth from 0.33 to 2 and width from 0.25 to 2, and beyond.
        """
        for field, factor in (("depth", depth), ("width", width)):
            if factor is not None and not (math.isfinite(factor) and factor > 0):
                raise ValueError(f"architecture {self.name}: {field}={factor} cannot scale; give a positive number")
        parts = [f"{letter}{factor:g}" for letter, factor in (("d", depth), ("w", width)) if factor is not None]
        depth = 1.0 if depth is None else depth
        compound = width is None
        width = self.elan.compound_width(depth) if compound else width
        hidden_width = 1.0 if compound else width
        return dataclasses.replace(
            self,
            name="-".join([self.name, *parts]),
            stem=self.stem.scaled(width),
            elan=self.elan.deepened(depth),
            stages=tuple(stage.scaled(width, hidden_width) for stage in self.stages),
            neck=self.neck.scaled(depth, width, hidden_width),
            head=self.head.scaled(width),
        )

    def with_downsample(self, downsample: Downsample) -> Architecture:
        """Return a copy in which every stage and the neck halve the resolution in the same way."""
        stages = tuple(dataclasses.replace(stage, downsample=downsample) for stage in self.stages)
        return self.replace(stages=stages, neck=dataclasses.replace(self.neck, downsample=downsample))

    def with_extended_elan(self) -> Architecture:
        """Return a copy whose ELAN blocks are all extended (E-ELAN)."""
        neck = dataclasses.replace(self.neck, elan=dataclasses.replace(self.neck.elan, extended=True))
        return self.replace(elan=dataclasses.replace(self.elan, extended=True), neck=neck)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, tuples, strings and numbers: what JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Architecture:
        """Rebuild from `to_dict()`, also after a trip through JSON; ValueError names the wrong field."""
        return from_plain(cls, data, "architecture")


def _scaled_all(channels: tuple[int, ...], factor: float) -> tuple[int, ...]:
    return tuple(scaled_channels(c, factor) for c in channels)


TINY_ANCHORS_PX: Anchors = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
P5_ANCHORS_PX: Anchors = (
    ((12.0, 16.0), (19.0, 36.0), (40.0, 28.0)),
    ((36.0, 75.0), (76.0, 55.0), (72.0, 146.0)),
    ((142.0, 110.0), (192.0, 243.0), (459.0, 401.0)),
)
P6_ANCHORS_PX: Anchors = (
    ((19.0, 27.0), (44.0, 40.0), (38.0, 94.0)),
    ((96.0, 68.0), (86.0, 152.0), (180.0, 137.0)),
    ((140.0, 301.0), (303.0, 264.0), (238.0, 542.0)),
    ((436.0, 615.0), (739.0, 380.0), (925.0, 792.0)),
)

YOLOV7_TINY = Architecture(
    name="yolov7-tiny",
    activation="leaky-relu",
    stem=Stem(channels=(32,), conv_strides=(2,)),
    elan=Elan(num_steps=2, convs_per_step=1),
    stages=(
        Stage("conv", 64, 32, 64),
        Stage("pool", 64, 64, 128),
        Stage("pool", 128, 128, 256),
        Stage("pool", 256, 256, 512),
    ),
    neck=Neck("csp-light", "conv", Elan(2, 1), channels=(64, 128, 256), hidden_channels=(32, 64, 128)),
    head=Head("conv", channels=(128, 256, 512)),
    anchors_px=TINY_ANCHORS_PX,
)
YOLOV7_TINY_SILU = YOLOV7_TINY.replace(name="yolov7-tiny-silu", activation="silu")

YOLOV7 = Architecture(
    name="yolov7",
    activation="silu",
    stem=Stem(channels=(32, 64, 64), conv_strides=(1, 2, 1)),
    elan=Elan(num_steps=2, convs_per_step=2),
    stages=(
        Stage("conv", 128, 64, 256),
        Stage("pool-conv", 256, 128, 512),
        Stage("pool-conv", 512, 256, 1024),
        Stage("pool-conv", 1024, 256, 1024),
    ),
    neck=Neck("csp", "pool-conv", Elan(4, 1, narrow=True), channels=(128, 256, 512), hidden_channels=(128, 256, 512)),
    head=Head("rep-conv", channels=(256, 512, 1024)),
    anchors_px=P5_ANCHORS_PX,
)

# Table 3's base: the neck has the backbone's blocks, and the head plain convolutions.
YOLOV7_X_LIGHT = YOLOV7.replace(
    name="yolov7-x-light",
    neck=dataclasses.replace(YOLOV7.neck, elan=YOLOV7.elan),
    head=dataclasses.replace(YOLOV7.head, conv="conv"),
)
YOLOV7_X = YOLOV7_X_LIGHT.scaled(depth=1.5).replace(name="yolov7-x")

_P6_LIGHT = Architecture(
    name="yolov7-p6-light",
    activation="silu",
    stem=Stem(channels=(64,), conv_strides=(1,), space_to_depth=True),
    elan=Elan(num_steps=2, convs_per_step=2),
    stages=(
        Stage("conv", 128, 64, 128),
        Stage("conv", 256, 128, 256),
        Stage("conv", 512, 256, 512),
        Stage("conv", 768, 384, 768),
        Stage("conv", 1024, 512, 1024),
    ),
    neck=Neck(
        "csp", "conv", Elan(4, 1, narrow=True), channels=(128, 256, 384, 512), hidden_channels=(128, 256, 384, 512)
    ),
    head=Head("conv", channels=(256, 512, 768, 1024), auxiliary_channels=(256, 512, 768, 1024)),
    anchors_px=P6_ANCHORS_PX,
    default_image_size_px=1280,
)
# W6's auxiliary head is as wide as E6's; in E6 and D6 it follows the lead head.
YOLOV7_W6 = _P6_LIGHT.replace(
    name="yolov7-w6", head=dataclasses.replace(_P6_LIGHT.head, auxiliary_channels=(320, 640, 960, 1280))
)
YOLOV7_E6 = _P6_LIGHT.scaled(depth=1.5).with_downsample("down-c").replace(name="yolov7-e6")
YOLOV7_D6 = _P6_LIGHT.scaled(depth=2.0).with_downsample("down-c").replace(name="yolov7-d6")
YOLOV7_E6E = YOLOV7_E6.with_extended_elan().replace(name="yolov7-e6e")

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        YOLOV7_TINY, YOLOV7_TINY_SILU, YOLOV7, YOLOV7_X, YOLOV7_W6, YOLOV7_E6, YOLOV7_D6, YOLOV7_E6E,
    )
}  # fmt: skip


def architecture(name: str) -> Architecture:
    """Return the architecture of that name; ValueError lists the names."""
    if name not in ARCHITECTURES:
        raise ValueError(f"architecture {name!r} is unknown; choose {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
