"""Block descriptions as data; `yolov7.model.block` builds the modules."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "leaky-relu"]
Downsample = Literal["conv", "pool", "pool-conv", "down-c", "pelee"]
PyramidPooling = Literal["csp", "csp-light", "spp", "none"]
Residual = Literal["dark", "reversed-dark", "bottleneck", "resnext"]


@dataclass(frozen=True)
class Elan:
    """Shape of an ELAN block.

    The block starts with two pointwise branches; `num_steps` steps of `convs_per_step` 3x3 convolutions
    follow the second one; all outputs are concatenated and fused by one pointwise convolution. `narrow` halves the
    channels of the steps; `extended` sums two such blocks in parallel (E-ELAN, two groups).
    `rep_convs` lists the indices of the 3x3 convolutions, from 0 at the entry, that are RepConv (section 4.1).
    """

    num_steps: int
    convs_per_step: int
    narrow: bool = False
    extended: bool = False
    rep_convs: tuple[int, ...] = ()
    kind: Literal["elan"] = "elan"

    def __post_init__(self) -> None:
        out_of_range = [i for i in self.rep_convs if not 0 <= i < self.num_convs]
        if out_of_range:
            raise ValueError(
                f"rep_convs {out_of_range}: an ELAN of {self.num_convs} convolutions has 0 to {self.num_convs - 1}"
            )

    @property
    def num_convs(self) -> int:
        return self.num_steps * self.convs_per_step

    def deepened(self, depth: float) -> Elan:
        """Return a copy with more or fewer steps; RepConvs of removed steps are dropped."""
        num_steps = max(1, round(self.num_steps * depth))
        kept = tuple(i for i in self.rep_convs if i < num_steps * self.convs_per_step)
        return dataclasses.replace(self, num_steps=num_steps, rep_convs=kept)

    def compound_width(self, depth: float) -> float:
        """The factor by which the concatenation grows with depth: (branches after) / (branches before)."""
        num_pointwise = 2
        return (num_pointwise + self.num_steps * depth) / (num_pointwise + self.num_steps)


@dataclass(frozen=True)
class Csp:
    """Shape of a CSP block: one part of the channels goes through residual blocks, the other bypasses them.

    `transition` puts a pointwise convolution after the blocks, before the parts are concatenated.
    With `shared_entry` both parts start from one pointwise convolution; such blocks, used in the necks,
    have no shortcuts.
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
        """Constant: two parts are concatenated at any depth."""
        return 1.0


@dataclass(frozen=True)
class Dark:
    """A stack of residual blocks over the whole width (Darknet-53, YOLOv3)."""

    num_blocks: int
    residual: Residual = "dark"
    rep_conv: bool = False
    kind: Literal["dark"] = "dark"

    def deepened(self, depth: float) -> Dark:
        return dataclasses.replace(self, num_blocks=max(1, round(self.num_blocks * depth)))

    def compound_width(self, depth: float) -> float:
        """Constant: a residual stack is as wide as its input at any depth."""
        return 1.0


@dataclass(frozen=True)
class ConvSet:
    """YOLOv3's block of a pyramid level: alternating 1x1 and 3x3 convolutions, `num_steps` of each, then a 1x1."""

    num_steps: int
    kind: Literal["conv-set"] = "conv-set"

    def deepened(self, depth: float) -> ConvSet:
        return dataclasses.replace(self, num_steps=max(1, round(self.num_steps * depth)))

    def compound_width(self, depth: float) -> float:
        """Constant: the width of a chain of convolutions does not depend on its depth."""
        return 1.0


Block = Elan | Csp | Dark | ConvSet
