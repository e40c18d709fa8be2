"""The YOLOv7 family, built by scaling three bases, and every architecture by name.

Paper: arXiv:2207.02696. From YOLOv7 to X, and from W6 to E6 to D6, the hidden widths of the ELAN
blocks stay constant: depth adds branches, and the layers between the blocks widen with them.
"""

from __future__ import annotations

import dataclasses

from .baselines import BASELINES, TABLE_5
from .blocks import Elan
from .language import P5_ANCHORS_PX, P6_ANCHORS_PX, YOLOV3_ANCHORS_PX, Architecture, Head, Neck, Stage, Stem

TINY_ELAN = Elan(num_steps=2, convs_per_step=1)
ELAN = Elan(num_steps=2, convs_per_step=2)
NECK_ELAN = Elan(num_steps=4, convs_per_step=1, narrow=True)

YOLOV7_TINY = Architecture(
    name="yolov7-tiny",
    activation="leaky-relu",
    stem=Stem(channels=(32,), conv_strides=(2,)),
    stages=(
        Stage("conv", 64, 32, 64, TINY_ELAN),
        Stage("pool", 64, 64, 128, TINY_ELAN),
        Stage("pool", 128, 128, 256, TINY_ELAN),
        Stage("pool", 256, 256, 512, TINY_ELAN),
    ),
    neck=Neck("csp-light", "conv", TINY_ELAN, channels=(64, 128, 256), hidden_channels=(32, 64, 128)),
    head=Head("conv", channels=(128, 256, 512)),
    anchors_px=YOLOV3_ANCHORS_PX,
)
YOLOV7_TINY_SILU = YOLOV7_TINY.replace(name="yolov7-tiny-silu", activation="silu")

YOLOV7 = Architecture(
    name="yolov7",
    activation="silu",
    stem=Stem(channels=(32, 64, 64), conv_strides=(1, 2, 1)),
    stages=(
        Stage("conv", 128, 64, 256, ELAN),
        Stage("pool-conv", 256, 128, 512, ELAN),
        Stage("pool-conv", 512, 256, 1024, ELAN),
        Stage("pool-conv", 1024, 256, 1024, ELAN),
    ),
    neck=Neck("csp", "pool-conv", NECK_ELAN, channels=(128, 256, 512), hidden_channels=(128, 256, 512)),
    head=Head("rep-conv", channels=(256, 512, 1024)),
    anchors_px=P5_ANCHORS_PX,
)

# Table 3's base: the neck has the backbone's blocks, and the head plain convolutions. The other rows follow from it:
# width 1.25; depth 2 with width 1; depth 1.5 (compound, YOLOv7-X).
YOLOV7_X_LIGHT = YOLOV7.replace(
    name="yolov7-x-light",
    neck=dataclasses.replace(YOLOV7.neck, block=ELAN),
    head=dataclasses.replace(YOLOV7.head, conv="conv"),
)
YOLOV7_X = YOLOV7_X_LIGHT.scaled(depth=1.5).replace(name="yolov7-x")

_P6_LIGHT = Architecture(
    name="yolov7-p6-light",
    activation="silu",
    stem=Stem(channels=(64,), conv_strides=(1,), space_to_depth=True),
    stages=(
        Stage("conv", 128, 64, 128, ELAN),
        Stage("conv", 256, 128, 256, ELAN),
        Stage("conv", 512, 256, 512, ELAN),
        Stage("conv", 768, 384, 768, ELAN),
        Stage("conv", 1024, 512, 1024, ELAN),
    ),
    neck=Neck("csp", "conv", NECK_ELAN, channels=(128, 256, 384, 512), hidden_channels=(128, 256, 384, 512)),
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


def rep_elan(placement: str, rep_convs: tuple[int, ...]) -> Architecture:
    """Return YOLOv7-X, whose ELANs stack three steps of two 3x3 convolutions, with RepConv at these positions."""
    changed = YOLOV7_X.with_blocks(rep_convs=rep_convs).with_neck_block(rep_convs=rep_convs)
    return changed.replace(name=f"yolov7-x-rep-{placement}")


# Table 4: positions of RepConv in a 3-stacked ELAN of convolutions 0 to 5; 1, 3 and 5 end a step, so that
# the concatenation follows them directly. The paper shows its placements only in figure 6, without naming
# them: another placement is one more tuple.
TABLE_4: dict[str, Architecture] = {
    changed.name: changed
    for changed in (
        rep_elan("none", ()),
        rep_elan("all", (0, 1, 2, 3, 4, 5)),
        rep_elan("first-of-step", (0, 2, 4)),
        rep_elan("last-of-step", (1, 3, 5)),
        rep_elan("first-step", (0, 1)),
        rep_elan("last-step", (4, 5)),
    )
}

# Table 8: E6E's auxiliary head sees the whole extended block instead of one half of it.
YOLOV7_E6E_FULL_AUXILIARY = YOLOV7_E6E.replace(
    name="yolov7-e6e-full-auxiliary", head=dataclasses.replace(YOLOV7_E6E.head, partial_auxiliary=False)
)

ABLATIONS: dict[str, Architecture] = {
    YOLOV7_X_LIGHT.name: YOLOV7_X_LIGHT,
    **TABLE_4,
    **TABLE_5,
    YOLOV7_E6E_FULL_AUXILIARY.name: YOLOV7_E6E_FULL_AUXILIARY,
}


def architecture(name: str) -> Architecture:
    """Return an architecture (family, baseline or ablation) by name; ValueError lists the known names."""
    known = {**ARCHITECTURES, **BASELINES, **ABLATIONS}
    if name not in known:
        raise ValueError(
            f"architecture {name!r} is unknown; choose {', '.join(ARCHITECTURES)}, a baseline ({', '.join(BASELINES)}) "
            f"or an ablation ({', '.join(ABLATIONS)})"
        )
    return known[name]
