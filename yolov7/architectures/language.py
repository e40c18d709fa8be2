"""Architecture descriptions: frozen dataclasses and one scaling rule.

Paper: arXiv:2207.02696, section 3.2 (model scaling for concatenation-based models).
Channel counts are absolute; feature levels are listed from fine (small stride) to coarse.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from .blocks import Activation, Block, Downsample, PyramidPooling
from .channels import scaled_all, scaled_channels
from .serialization import from_plain

HeadConv = Literal["conv", "rep-conv"]
Anchors = tuple[tuple[tuple[float, float], ...], ...]


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
        return dataclasses.replace(self, channels=scaled_all(self.channels, width))


@dataclass(frozen=True)
class Stage:
    """One backbone stage: halve the resolution to `in_channels`, then one block."""

    downsample: Downsample
    in_channels: int
    hidden_channels: int
    out_channels: int
    block: Block

    def scaled(self, depth: float, width: float, hidden_width: float) -> Stage:
        return dataclasses.replace(
            self,
            in_channels=scaled_channels(self.in_channels, width),
            hidden_channels=scaled_channels(self.hidden_channels, hidden_width),
            out_channels=scaled_channels(self.out_channels, width),
            block=self.block.deepened(depth),
        )


@dataclass(frozen=True)
class Neck:
    """Spatial pyramid pooling, then a pyramid of blocks (one width per level).

    A path-aggregation pyramid goes down from coarse to fine and up again; without `bottom_up` it is
    YOLOv3's feature pyramid, which goes down only and takes the backbone's maps as they are.
    """

    pyramid_pooling: PyramidPooling
    downsample: Downsample
    block: Block
    channels: tuple[int, ...]
    hidden_channels: tuple[int, ...]
    bottom_up: bool = True

    def scaled(self, depth: float, width: float, hidden_width: float) -> Neck:
        return dataclasses.replace(
            self,
            block=self.block.deepened(depth),
            channels=scaled_all(self.channels, width),
            hidden_channels=scaled_all(self.hidden_channels, hidden_width),
        )


@dataclass(frozen=True)
class Head:
    """The last 3x3 convolution of each level, for the lead head and, where given, the auxiliary one.

    `implicit` gives the lead predictors implicit knowledge (section 4.3). `partial_auxiliary` attaches
    the auxiliary head to one half of each extended block (section 5.4.3, Table 8).
    """

    conv: HeadConv
    channels: tuple[int, ...]
    auxiliary_channels: tuple[int, ...] | None = None
    implicit: bool = True
    partial_auxiliary: bool = False

    def scaled(self, width: float) -> Head:
        auxiliary = self.auxiliary_channels
        return dataclasses.replace(
            self,
            channels=scaled_all(self.channels, width),
            auxiliary_channels=None if auxiliary is None else scaled_all(auxiliary, width),
        )


@dataclass(frozen=True)
class Architecture:
    """Everything that the builder needs; `anchors_px` is (L, A, 2) width and height in pixels."""

    name: str
    activation: Activation
    stem: Stem
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
        if self.head.partial_auxiliary and not getattr(self.neck.block, "extended", False):
            raise ValueError(
                f"architecture {self.name}: head.partial_auxiliary needs halves to choose from; "
                "give neck.block extended ELANs or the auxiliary head the whole block"
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

        `depth` alone is compound scaling: blocks get deeper, their hidden channels stay, and the layers
        between blocks widen in proportion to their concatenation. `width` widens every channel
        instead; `scaled(depth=d, width=1)` and `scaled(width=w)` are the depth-only and width-only
        rows of Table 3. Valid for depth from 0.33 to 2 and width from 0.25 to 2, and beyond.
        """
        for field, factor in (("depth", depth), ("width", width)):
            if factor is not None and not (math.isfinite(factor) and factor > 0):
                raise ValueError(f"architecture {self.name}: {field}={factor} cannot scale; give a positive number")
        parts = [f"{prefix}{factor:g}" for prefix, factor in (("d", depth), ("w", width)) if factor is not None]
        depth = 1.0 if depth is None else depth
        compound = width is None
        width = self.stages[-1].block.compound_width(depth) if compound else width
        hidden_width = 1.0 if compound else width
        return self.replace(
            name="-".join([self.name, *parts]),
            stem=self.stem.scaled(width),
            stages=tuple(stage.scaled(depth, width, hidden_width) for stage in self.stages),
            neck=self.neck.scaled(depth, width, hidden_width),
            head=self.head.scaled(width),
        )

    def with_downsample(self, downsample: Downsample) -> Architecture:
        """Return a copy in which every stage and the neck halve the resolution in the same way."""
        stages = tuple(dataclasses.replace(stage, downsample=downsample) for stage in self.stages)
        return self.replace(stages=stages, neck=dataclasses.replace(self.neck, downsample=downsample))

    def with_blocks(self, **changes: Any) -> Architecture:
        """Return a copy with some fields of every backbone block changed; ValueError if a block lacks one."""
        stages = tuple(
            dataclasses.replace(stage, block=self._replace_block_fields(stage.block, changes)) for stage in self.stages
        )
        return self.replace(stages=stages)

    def with_neck_block(self, **changes: Any) -> Architecture:
        """Return a copy with some fields of the neck's block changed; ValueError if it lacks one."""
        block = self._replace_block_fields(self.neck.block, changes)
        return self.replace(neck=dataclasses.replace(self.neck, block=block))

    def with_extended_elan(self) -> Architecture:
        """Return a copy whose ELAN blocks are all extended (E-ELAN, section 3.1).

        An auxiliary head becomes partial, as in YOLOv7-E6E.
        """
        extended = self.with_blocks(extended=True).with_neck_block(extended=True)
        return extended.replace(head=dataclasses.replace(self.head, partial_auxiliary=self.has_auxiliary))

    def without_auxiliary(self) -> Architecture:
        """Return a copy without the auxiliary head (the base rows of Tables 6 to 8)."""
        head = dataclasses.replace(self.head, auxiliary_channels=None, partial_auxiliary=False)
        return self.replace(head=head)

    def _replace_block_fields(self, block: Block, changes: dict[str, Any]) -> Block:
        fields = [field.name for field in dataclasses.fields(block)]
        unknown = sorted(set(changes) - set(fields))
        if unknown:
            raise ValueError(
                f"architecture {self.name}: its {block.kind} blocks have no {', '.join(unknown)}; "
                f"they have {', '.join(fields)}"
            )
        return dataclasses.replace(block, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, tuples, strings and numbers, which JSON can represent."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Architecture:
        """Rebuild from `to_dict()`, also after a JSON round trip; ValueError names the wrong field."""
        return from_plain(cls, data, "architecture")


# COCO anchors that several architectures share.
YOLOV3_ANCHORS_PX: Anchors = (
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
