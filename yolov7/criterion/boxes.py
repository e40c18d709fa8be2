"""Boxes: conversions between formats, overlaps, clipping.

Every box tensor is (..., 4) and floating. `xyxy` is left, top, right, bottom; `cxcywh` is
centre x, centre y, width, height. Both operands share the caller's unit and coordinate frame.
"""

import math
from typing import Literal

import torch
from torch import Tensor

IoUKind = Literal["iou", "giou", "diou", "ciou"]
EPSILON = 1e-7


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Centre and size (..., 4) to corners (..., 4)."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Corners (..., 4) to centre and size (..., 4)."""
    top_left, bottom_right = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat(((top_left + bottom_right) / 2, bottom_right - top_left), dim=-1)


def clip_boxes(boxes_xyxy: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Corners (..., 4) in pixels, clipped to an image of size (height, width)."""
    height_px, width_px = size_hw
    x1, y1, x2, y2 = boxes_xyxy.unbind(-1)
    return torch.stack(
        (
            x1.clamp(0, width_px),
            y1.clamp(0, height_px),
            x2.clamp(0, width_px),
            y2.clamp(0, height_px),
        ),
        dim=-1,
    )


def intersection_over_union(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Overlap in [0, 1] of boxes whose leading shapes broadcast; 0 where both are empty."""
    ax1, ay1, ax2, ay2 = a_xyxy.unbind(-1)
    bx1, by1, bx2, by2 = b_xyxy.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    overlap = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - overlap
    return overlap / union.clamp(min=EPSILON**2)


def box_iou_matrix(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Overlap of every box of (..., N, 4) with every box of (..., M, 4): (..., N, M) in [0, 1]."""
    return intersection_over_union(a_xyxy.unsqueeze(-2), b_xyxy.unsqueeze(-3))


def bbox_iou(a_cxcywh: Tensor, b_cxcywh: Tensor, kind: IoUKind = "iou") -> Tensor:
    """Elementwise overlap of two (..., 4) tensors, optionally with a penalty that has a gradient
    where the boxes do not touch.

    "giou": share of the enclosing box that neither covers (Rezatofighi et al. 2019, eq. 1).
    "diou": squared centre distance over squared enclosing diagonal (Zheng et al. 2020, eq. 7).
    "ciou": as diou, and the difference in aspect ratio (ibid., eq. 8-11; alpha is a constant).
    """
    a_centre, a_size = a_cxcywh[..., :2], a_cxcywh[..., 2:]
    b_centre, b_size = b_cxcywh[..., :2], b_cxcywh[..., 2:]
    distance = a_centre - b_centre
    a_half, b_half = a_size / 2, b_size / 2
    low = torch.maximum(a_centre - a_half, b_centre - b_half)
    high = torch.minimum(a_centre + a_half, b_centre + b_half)
    inner = high - low
    overlap = _area(inner.clamp(min=0))
    union = _area(a_size) + _area(b_size) - overlap + EPSILON
    iou = overlap / union
    if kind == "iou":
        return iou
    enclosing = a_size + b_size - inner
    if kind == "giou":
        hull = _area(enclosing) + EPSILON
        return iou - (hull - union) / hull
    diou = iou - distance.square().sum(-1) / (enclosing.square().sum(-1) + EPSILON)
    if kind == "diou":
        return diou
    if kind != "ciou":
        raise ValueError(f"bbox_iou: kind {kind!r} is unknown; choose iou, giou, diou or ciou")
    a_angle, b_angle = (
        torch.atan(size[..., 0] / (size[..., 1] + EPSILON)) for size in (a_size, b_size)
    )
    aspect = 4 / math.pi**2 * (a_angle - b_angle).square()
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + EPSILON)
    return diou - alpha * aspect


def _area(sizes: Tensor) -> Tensor:
    """Width times height of (..., 2). Not `prod`, whose gradient synchronises with the device."""
    return sizes[..., 0] * sizes[..., 1]
