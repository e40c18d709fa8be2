"""Assignment: which predictions answer for which target.

Two steps, in this order:

1. `match_anchors`: by shape and place alone, on the host where the targets are. The data-dependent
   shapes are settled here, so that nothing afterwards waits for the device.
2. `assign_ota`: among those candidates, by cost (SimOTA), on the device, all images at once.

B images · L levels · A anchors · N targets · C classes · K candidates · M most candidates of an image
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from yolov7.boxes import cxcywh_to_xyxy, intersection_over_union

# Directions in which a cell may lend its target to a neighbour: itself, left, up, right, down.
NEIGHBOURS_XY = torch.tensor([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]])

FINE_REACH = 0.5
"""Cells from a target's centre to a neighbour that shares it: the two nearest (lead head)."""

COARSE_REACH = 1.0
"""The same for coarse labels: all four neighbours (auxiliary head, paper section 4.2)."""

IOU_COST_GAIN = 3.0
"""Weight of the box cost beside the classification cost (OTA, section 3.1; SimOTA of YOLOX)."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """K predictions that may answer for a target, ordered by level, neighbour, anchor, target."""

    image: Tensor  # (K,) int64, as all indices here
    anchor: Tensor
    y: Tensor
    x: Tensor
    level: Tensor
    target: Tensor  # the target that proposed this candidate
    cell: Tensor  # in [0, K): equal for candidates that are one and the same prediction
    column: Tensor  # position among the candidates of its image
    table: Tensor  # (B, M): candidates of each image, -1 after the last
    anchor_px: Tensor  # (K, 2) width and height
    stride_px: Tensor  # (K, 1)
    num_per_level: tuple[int, ...]

    def to(self, device: torch.device) -> Self:
        """The same on a device, without waiting for it."""
        values = (getattr(self, field.name) for field in fields(self))
        return Candidates(*(send(v, device) if isinstance(v, Tensor) else v for v in values))

    def indices_per_level(self) -> list[tuple[Tensor, ...]]:
        """Per level image, anchor, y, x: where its candidates are in its (B, A, H, W, 5+C)."""
        parts = (i.split(self.num_per_level) for i in (self.image, self.anchor, self.y, self.x))
        return list(zip(*parts, strict=True))

    def read(self, outputs: Sequence[Tensor]) -> Tensor:
        """These predictions (K, 5+C) out of the outputs (B, A, H, W, 5+C) of the levels."""
        pairs = zip(outputs, self.indices_per_level(), strict=True)
        return torch.cat([output[indices] for output, indices in pairs])

    def decode(self, cells: Tensor) -> Tensor:
        """Raw predictions (K, 5+C) to boxes (K, 4): cx, cy, w, h in pixels."""
        scaled = cells[:, :4].sigmoid() * 2
        origin = torch.stack((self.x, self.y), dim=1)
        centre = (scaled[:, :2] - 0.5 + origin) * self.stride_px
        return torch.cat((centre, scaled[:, 2:].square() * self.anchor_px), dim=1)

    def last_of_each_cell(self, positive: Tensor) -> Tensor:
        """Whether a candidate (K,) is positive and no later positive is the same prediction."""
        order = torch.arange(len(self.cell), device=self.cell.device)
        order = torch.where(positive, order, -1)
        last = torch.full_like(self.cell, -1).scatter_reduce_(0, self.cell, order, "amax")
        return positive & (last[self.cell] == order)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`, through pinned memory: a plain copy waits for the GPU."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def match_anchors(
    targets: Tensor,
    anchors_px: Tensor,
    strides_px: Sequence[int],
    grids_hw: Sequence[tuple[int, int]],
    num_images: int,
    ratio_threshold: float = 4.0,
    reach: float = FINE_REACH,
) -> Candidates:
    """Propose each target to the anchors of its shape, in its cell and the nearest neighbours.

    An anchor fits when neither side differs by `ratio_threshold` or more. `targets` (N, 6) on the
    CPU: image, class, cx, cy, w, h in pixels; `anchors_px` (L, A, 2) on the CPU; `grids_hw` the
    cells of each level. One pass over (L, 5, A, N), hence the order of the candidates.
    """
    dtype = targets.dtype
    grid_wh = torch.tensor([(width, height) for height, width in grids_hw], dtype=dtype)[:, None]
    stride = torch.tensor(strides_px, dtype=dtype)
    centre = targets[:, 2:4] / stride[:, None, None]  # (L, N, 2) in cells

    ratio = targets[:, 4:6] / anchors_px.to(dtype)[:, :, None]  # (L, A, N, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < ratio_threshold

    mirrored = grid_wh - centre
    near_low = (centre % 1 < reach) & (centre > 1)
    near_high = (mirrored % 1 < reach) & (mirrored > 1)
    own = torch.ones_like(near_low[..., :1])
    near = torch.cat((own, near_low, near_high), dim=-1).movedim(-1, 1)  # (L, 5, N)

    level, neighbour, anchor, target = (near[:, :, None] & fits[:, None]).nonzero(as_tuple=True)
    spot = (centre[level, target] + NEIGHBOURS_XY[neighbour] * reach).floor().long()
    last = grid_wh[:, 0].long() - 1
    x, y = torch.minimum(spot, last[level]).clamp(min=0).unbind(1)
    image = targets[target, 0].long()
    num_anchors, (width, height) = anchors_px.shape[1], last.amax(0).add(1).tolist()
    place = (((level * num_images + image) * num_anchors + anchor) * height + y) * width + x
    return Candidates(
        image,
        anchor,
        y,
        x,
        level,
        target,
        place.unique(return_inverse=True)[1],
        *_by_image(image, num_images),
        anchors_px.to(dtype)[level, anchor],
        stride[level, None],
        tuple(torch.bincount(level, minlength=len(grids_hw)).tolist()),
    )


def _by_image(image: Tensor, num_images: int) -> tuple[Tensor, Tensor]:
    """Column (K,) of each candidate among those of its image, and the table (B, M) of them all."""
    count = torch.bincount(image, minlength=num_images)
    order = image.argsort(stable=True)
    column = torch.empty_like(image)
    column[order] = torch.arange(len(image)) - (count.cumsum(0) - count)[image[order]]
    table = torch.full((num_images, int(count.max())), -1)
    table[image, column] = torch.arange(len(image))
    return column, table


@torch.no_grad()
def assign_ota(
    candidates: Candidates, cells: Tensor, targets: Tensor, num_ious: int
) -> Tensor:
    """Give each target its dynamic k cheapest candidates: (K,) index of the target served, or -1.

    SimOTA (YOLOX section 2.1 after OTA, Ge et al. 2021). k is the sum of a target's `num_ious`
    largest overlaps, at least 1. A candidate that several targets claim serves the one (of all in
    its image) to whom it is cheapest, the first of them where costs are equal. `cells` (K, 5+C) raw
    predictions; `targets` (N, 6) as in `match_anchors`. Matrices are (N, M).
    """
    if not len(candidates.target):
        return candidates.target
    image, label = targets[:, 0].long(), targets[:, 1].long()
    members = candidates.table[image]
    valid = members >= 0
    members = members.clamp(min=0)

    target_xyxy = cxcywh_to_xyxy(targets[:, 2:])
    predicted_xyxy = cxcywh_to_xyxy(candidates.decode(cells))
    iou = intersection_over_union(target_xyxy[:, None], F.embedding(members, predicted_xyxy)) * valid
    cost = classification_cost(cells, members, label) - IOU_COST_GAIN * (iou + 1e-8).log()
    cost = cost.masked_fill(~valid, float("inf"))

    most = min(num_ious, members.shape[1])
    dynamic_k = iou.topk(most).values.sum(1, keepdim=True).long().clamp(min=1)
    claimed = _cheapest(cost, dynamic_k, most) & valid
    return _settle(cost, claimed, image, candidates)


def _cheapest(cost: Tensor, k: Tensor, most: int) -> Tensor:
    """Mark the k (N, 1) lowest costs of each row of (N, M), the last ones where they are equal.

    Equal costs are common: two targets may propose the same prediction. `topk` breaks such ties
    differently from device to device, hence only its values are used. 1 <= k <= most.
    """
    limit = cost.topk(most, largest=False).values.gather(1, k - 1)
    equal = cost == limit
    surplus = (cost <= limit).sum(1, keepdim=True) - k
    return (cost < limit) | (equal & (equal.cumsum(1) > surplus))


def _settle(cost: Tensor, claimed: Tensor, image: Tensor, candidates: Candidates) -> Tensor:
    """One target at most per candidate: costs and claims (N, M) to owners (K,), -1 for none.

    Rows of one image (N,) are reduced together, as minima and sums over the candidate table (B, M).
    """
    columns = image[:, None].expand_as(cost)
    shape, nobody = candidates.table.shape, len(cost)
    num_claims = cost.new_zeros(shape).scatter_add_(0, columns, claimed.to(cost.dtype))
    lowest = cost.new_full(shape, float("inf")).scatter_reduce_(0, columns, cost, "amin")
    serves = torch.where(num_claims[image] > 1, cost == lowest[image], claimed)
    target = torch.where(serves, torch.arange(nobody, device=cost.device)[:, None], nobody)
    owner = torch.full_like(candidates.table, nobody).scatter_reduce_(0, columns, target, "amin")
    owner = owner[candidates.image, candidates.column]
    return torch.where(owner < nobody, owner, -1)


def classification_cost(cells: Tensor, members: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy, summed over classes, of each candidate as each target's class: (N, M).

    The probability is y = sqrt(P(class) P(object)). In logarithms, so that it stays finite for any
    logit: log y is a mean of log-sigmoids, log(1 - y) is log(-expm1(log y)). Only the term of the
    target's own class differs between targets, so the sum over classes is made once per candidate.
    """
    log_y = (F.logsigmoid(cells[:, 5:]) + F.logsigmoid(cells[:, 4:5])) / 2
    log_not_y = log_y.clamp(max=-1e-30).expm1().neg().log()
    as_background = -log_not_y.sum(1)
    own_class = (log_not_y - log_y)[members, label[:, None]]
    return as_background[members] + own_class
