"""The baselines of the paper's Table 1, described like the YOLOv7 family, and the ablation of Table 5.

YOLOv3: Darknet-53 and a feature pyramid. YOLOv4-CSP (Scaled-YOLOv4): both in cross-stage-partial
form. YOLOR: the same with implicit knowledge, and its P6 models. R50-CSP, X50-CSP: ResNet backbones.
"""

from __future__ import annotations

import dataclasses

from .blocks import ConvSet, Csp, Dark, Residual
from .language import P5_ANCHORS_PX, P6_ANCHORS_PX, YOLOV3_ANCHORS_PX, Architecture, Head, Neck, Stage, Stem

# ---- YOLOv3 ---------------------------------------------------------------------------------------

YOLOV3 = Architecture(
    name="yolov3",
    activation="silu",
    stem=Stem(channels=(32,), conv_strides=(1,)),
    stages=(
        Stage("conv", 64, 32, 64, Dark(1)),
        Stage("conv", 128, 64, 128, Dark(2)),
        Stage("conv", 256, 128, 256, Dark(8)),
        Stage("conv", 512, 256, 512, Dark(8)),
        Stage("conv", 1024, 512, 1024, Dark(4)),
    ),
    neck=Neck("none", "conv", ConvSet(2), (128, 256, 512), hidden_channels=(256, 512, 1024), bottom_up=False),
    head=Head("conv", channels=(256, 512, 1024), implicit=False),
    anchors_px=YOLOV3_ANCHORS_PX,
)
YOLOV3_SPP = YOLOV3.replace(name="yolov3-spp", neck=dataclasses.replace(YOLOV3.neck, pyramid_pooling="spp"))

# ---- YOLOv4-CSP and YOLOR-CSP ---------------------------------------------------------------------

YOLOV4_CSP = Architecture(
    name="yolov4-csp",
    activation="silu",
    stem=Stem(channels=(32,), conv_strides=(1,)),
    stages=(
        Stage("conv", 64, 32, 64, Dark(1)),
        Stage("conv", 128, 64, 128, Csp(2, transition=True)),
        Stage("conv", 256, 128, 256, Csp(8, transition=True)),
        Stage("conv", 512, 256, 512, Csp(8, transition=True)),
        Stage("conv", 1024, 512, 1024, Csp(4, transition=True)),
    ),
    neck=Neck("csp", "conv", Csp(2, shared_entry=True), (128, 256, 512), hidden_channels=(128, 256, 512)),
    head=Head("conv", channels=(256, 512, 1024), implicit=False),
    anchors_px=P5_ANCHORS_PX,
)
YOLOR_CSP = YOLOV4_CSP.replace(name="yolor-csp", head=dataclasses.replace(YOLOV4_CSP.head, implicit=True))
YOLOR_CSP_X = YOLOR_CSP.scaled(depth=1.33, width=1.25).replace(name="yolor-csp-x")

# ---- ResNet-50 and ResNeXt-50 in cross-stage-partial form ------------------------------------------


def _resnet_50(name: str, residual: Residual) -> Architecture:
    """Return YOLOR-CSP with 3, 4, 6, 3 blocks of ResNet in the backbone, and the same blocks in the neck."""
    widths, depths = (128, 256, 512, 1024), (3, 4, 6, 3)
    downsamples = ("pelee", "conv", "conv", "conv")
    return YOLOR_CSP.replace(
        name=name,
        stem=Stem(channels=(64,), conv_strides=(2,)),
        stages=tuple(
            Stage(downsample, width, width // 2, width, Csp(depth, residual, transition=True))
            for downsample, width, depth in zip(downsamples, widths, depths)
        ),
        neck=dataclasses.replace(YOLOR_CSP.neck, block=Csp(2, residual, shared_entry=True)),
    )


R50_CSP = _resnet_50("r50-csp", "bottleneck")
X50_CSP = _resnet_50("x50-csp", "resnext")

# ---- YOLOR with four levels -----------------------------------------------------------------------


def _yolor_p6(name: str, channels: tuple[int, ...], depths: tuple[int, ...] = (3, 7, 7, 3, 3)) -> Architecture:
    """Return a YOLOR of four levels; `channels` and `depths` are those of the five stages."""
    halves = tuple(c // 2 for c in channels)
    return Architecture(
        name=name,
        activation="silu",
        stem=Stem(channels=(64,), conv_strides=(1,), space_to_depth=True),
        stages=tuple(Stage("conv", c, half, c, Csp(n)) for c, half, n in zip(channels, halves, depths)),
        neck=Neck("csp", "conv", Csp(3, shared_entry=True), halves[1:], hidden_channels=halves[1:]),
        head=Head("conv", channels=channels[1:]),
        anchors_px=P6_ANCHORS_PX,
        default_image_size_px=1280,
    )


_W6_CHANNELS = (128, 256, 512, 768, 1024)
YOLOR_P6 = _yolor_p6("yolor-p6", (128, 256, 384, 512, 640))
YOLOR_W6 = _yolor_p6("yolor-w6", _W6_CHANNELS)
YOLOR_E6 = YOLOR_W6.scaled(width=1.25).with_downsample("down-c").replace(name="yolor-e6")
YOLOR_D6 = (
    _yolor_p6("yolor-d6", _W6_CHANNELS, depths=(3, 15, 15, 7, 7))
    .scaled(width=1.25)
    .with_downsample("down-c")
    .replace(name="yolor-d6")
)

BASELINES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        YOLOV3, YOLOV3_SPP, YOLOV4_CSP, YOLOR_CSP, YOLOR_CSP_X,
        YOLOR_P6, YOLOR_W6, YOLOR_E6, YOLOR_D6, R50_CSP, X50_CSP,
    )
}  # fmt: skip

# ---- Table 5: planned RepConv in residual blocks (section 5.4.2, figure 7) --------------------------


def rep_csp(base: Architecture, row: str, residual: Residual, rep_conv: bool) -> Architecture:
    """Return the base with other dark blocks in its backbone; the neck, which has no shortcuts, is unchanged."""
    return base.with_blocks(residual=residual, rep_conv=rep_conv).replace(name=f"{base.name}-{row}")


TABLE_5: dict[str, Architecture] = {
    changed.name: changed
    for base in (YOLOR_W6, YOLOR_CSP)
    for changed in (
        rep_csp(base, "repcsp", "dark", rep_conv=True),
        rep_csp(base, "rcsp", "reversed-dark", rep_conv=False),
        rep_csp(base, "reprcsp", "reversed-dark", rep_conv=True),
    )
}
