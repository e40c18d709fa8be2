"""Label assignment: which predictions are trained on which target.

Two steps, in this order:

1. `match_anchors`: by shape and position alone, on the host where the targets are. It determines all
   data-dependent tensor shapes, so that no later step synchronises with the device.
2. `assign_ota`: among those candidates, by cost (SimOTA), on the device, all heads and images at once.

D heads · B images · L levels · A anchors · N targets · C classes · K candidates · M maximum
number of candidates per image and head. The outputs of a detector are D L: lead levels first, then auxiliary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .boxes import cxcywh_to_xyxy, intersection_over_union
from .crowds import IOU_COST_GAIN, MIN_IOU, Crowd, assign_crowd

# Offsets from a target's cell to the cells that may share the target: itself, left, up, right, down.
NEIGHBOURS_XY = np.array([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]])

FINE_REACH = 0.5
"""Maximum distance, in cells, from a target's centre to a neighbour that shares it: the two nearest (lead head)."""

COARSE_REACH = 1.0
"""The same for coarse labels: all four neighbours (auxiliary head, paper section 4.2)."""

CROWD_PAIRS, CROWD_PAIRS_GPU = 2**17, 2**24
"""Pairs of target and candidate, of one image and head, above which they are not compared in one matrix: about 100
objects in an image on the CPU; a thousand on a GPU, where matrices are quick and only their memory counts."""

MAX_LOGIT = 40.0
"""Logits are clamped to this magnitude in the assignment, so that odds and their products are finite in float32."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """K predictions that may be assigned to a target, ordered by output, neighbour, anchor, target."""

    image: Tensor  # (K,) int64, as all indices here
    anchor: Tensor
    y: Tensor
    x: Tensor
    output: Tensor  # head * L + level
    target: Tensor  # the target that proposed this candidate
    cell: Tensor  # in [0, K): equal for candidates that are the same prediction
    slot: Tensor  # index into the flattened table; its length for candidates of a crowd
    table: Tensor  # (B, D, M): candidates of each image and head, -1 after the last
    origin: Tensor  # (K, 2) x and y of the cell's corner minus 1/2: lower end of the decoder's range
    anchor_px: Tensor  # (K, 2) width and height
    stride_px: Tensor  # (K, 1)
    num_per_output: tuple[int, ...]
    crowds: tuple[Crowd, ...] = ()  # images and heads that are not in the table, but matched one by one

    def to(self, device: torch.device) -> Self:
        """Copy to a device, asynchronously."""
        values = (getattr(self, field.name) for field in fields(self))
        moved = [to_device(v, device) if isinstance(v, Tensor) else v for v in values]
        crowds = [Crowd(*(to_device(getattr(crowd, f.name), device) for f in fields(crowd))) for crowd in self.crowds]
        return Candidates(*moved[:-1], tuple(crowds))

    def indices_per_output(self) -> list[tuple[Tensor, ...]]:
        """Indices image, anchor, y, x of each output's candidates in its (B, A, H, W, 5+C)."""
        parts = (i.split(self.num_per_output) for i in (self.image, self.anchor, self.y, self.x))
        return list(zip(*parts, strict=True))

    def decode(self, cells: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Raw predictions (K, 5+C) to boxes (K, 4), or those of some `rows`: cx, cy, w, h in pixels."""
        scaled = cells[rows, :4].sigmoid() * 2
        centre = (scaled[:, :2] + self.origin[rows]) * self.stride_px[rows]
        return torch.cat((centre, scaled[:, 2:].square() * self.anchor_px[rows]), dim=1)

    def distance(self, centres_px: Tensor) -> Tensor:
        """Chebyshev distance (K,), in cells, from the centre of each candidate's cell to a point (K, 2) in
        pixels. The decoder reaches points up to 1 away."""
        return (centres_px / self.stride_px - (self.origin + 1)).abs().amax(1)

    def last_of_each_cell(self, positive: Tensor) -> Tensor:
        """Whether a candidate (K,) is positive and no later positive is the same prediction."""
        order = torch.arange(len(self.cell), device=self.cell.device)
        order = torch.where(positive, order, -1)
        last = torch.full_like(self.cell, -1).scatter_reduce_(0, self.cell, order, "amax")
        return positive & (last[self.cell] == order)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to `device` through pinned memory: a plain copy synchronises with the GPU."""
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
    reaches: Sequence[float] = (FINE_REACH,),
    crowd_pairs: int = CROWD_PAIRS,
) -> Candidates:
    """Propose candidates for each target: anchors of its shape, in its cell and the nearest neighbours.

    An anchor fits if neither side differs by a factor of `ratio_threshold` or more. `targets` (N, 6) on the
    CPU: image, class, cx, cy, w, h in pixels; `anchors_px` (L, A, 2) on the CPU; `grids_hw` the
    cells of each level; `reaches` D, one per head. Images with more than `crowd_pairs` pairs of target and
    candidate become crowds. One pass over (D, L, 5, A, N), hence the order
    of the candidates. In NumPy, whose call overhead is a third of torch's on such small arrays.
    """
    rows, dtype = targets.numpy(), targets.numpy().dtype
    anchors, (num_levels, num_anchors) = anchors_px.numpy().astype(dtype), anchors_px.shape[:2]
    stride, reach = np.array(strides_px, dtype), np.array(reaches, dtype)
    grid_wh = np.array(grids_hw, dtype)[:, ::-1]
    centre = rows[:, 2:4].T / stride[:, None, None]  # (L, 2, N) in cells

    with np.errstate(divide="ignore"):
        ratio = rows[:, 4:6].T / anchors[..., None]  # (L, A, 2, N)
        fits = np.maximum(ratio, 1 / ratio).max(axis=2) < ratio_threshold

    to_edges = np.concatenate((centre, grid_wh[..., None] - centre), axis=1)  # left, up, right, down
    is_near = (to_edges % 1 < reach[:, None, None, None]) & (to_edges > 1)
    is_near = np.concatenate((np.ones_like(is_near[:, :, :1]), is_near), axis=2)  # (D, L, 5, N)

    head, level, neighbour, anchor, target = (is_near[:, :, :, None] & fits[:, None]).nonzero()
    offset = (NEIGHBOURS_XY.astype(dtype) * reach[:, None, None])[head, neighbour]
    cell_xy = np.floor(centre[level, :, target] + offset)
    cell_xy = np.minimum(cell_xy, grid_wh[level] - 1).clip(0)
    x, y = np.ascontiguousarray(cell_xy.T, np.int64)
    image, output = rows[:, 0].astype(np.int64)[target], head * num_levels + level
    width, height = grid_wh.max(axis=0).astype(np.int64)
    image_and_head = image * len(reach) + head
    prediction = (((image_and_head * num_levels + level) * num_anchors + anchor) * height + y) * width + x
    crowded = np.bincount(image_and_head, minlength=num_images * len(reach)) * np.repeat(
        np.bincount(rows[:, 0].astype(np.int64), minlength=num_images), len(reach)) > crowd_pairs
    cell, slot, table = _group_by_image_and_head(prediction, image_and_head, (num_images, len(reach)), crowded)
    crowds = [_crowd(image_and_head == i, rows[:, 0] == i // len(reach), cell) for i in np.flatnonzero(crowded)]
    arrays = (
        *(image, anchor, y, x, output, target),
        *(cell, slot, table),
        *(cell_xy - reach.dtype.type(0.5), anchors[level, anchor], stride[level, None]),
    )
    num_per_output = np.bincount(output, minlength=len(reach) * num_levels)
    return Candidates(*map(torch.from_numpy, arrays), tuple(num_per_output.tolist()), tuple(crowds))


def _group_by_image_and_head(
    prediction: NDArray, image_and_head: NDArray, shape: tuple[int, int], crowded: NDArray
) -> tuple[NDArray, ...]:
    """Group candidates, given the indices (K,) of their predictions and of their image and head, and the
    shape (B, D): `cell` and `slot` (K,) and `table` (B, D, M) of `Candidates`. Groups that are `crowded`, (B D,)
    bool, are left out of the table."""
    order = prediction.argsort(kind="stable")
    prediction, row_of = prediction[order], image_and_head[order]
    cell, slot = np.empty_like(order), np.empty_like(order)
    cell[order] = (np.diff(prediction, prepend=prediction[:1]) != 0).cumsum()
    count = np.bincount(image_and_head, minlength=shape[0] * shape[1])
    max_count, first = count[~crowded].max(initial=0), count.cumsum() - count
    slot[order] = np.arange(len(image_and_head)) + (np.arange(len(count)) * max_count - first)[row_of]
    table = np.full((*shape, max_count), -1)
    outside = crowded[image_and_head]
    slot[outside] = table.size
    table.reshape(-1)[slot[~outside]] = np.flatnonzero(~outside)
    return cell, slot, table


def _crowd(is_member: NDArray, is_target: NDArray, cell: NDArray) -> Crowd:
    """The crowd of those candidates (K,) and targets (N,) that are marked."""
    members = np.flatnonzero(is_member)
    _, first, unique, multiplicity = np.unique(
        cell[members], return_index=True, return_inverse=True, return_counts=True)
    return Crowd(*map(torch.from_numpy, (members, np.flatnonzero(is_target), unique, multiplicity, first)))


@torch.no_grad()
def assign_ota(
    candidates: Candidates, cells: Tensor, targets: Tensor, num_ious: int
) -> Tensor:
    """Assign each target its dynamic k cheapest candidates: (K,) index of the assigned target, or -1.

    SimOTA (YOLOX section 2.1 after OTA, Ge et al. 2021). k is the sum of a target's `num_ious`
    largest overlaps, at least 1. A candidate claimed by several targets goes to the one (of all in
    its image) with the lowest cost, the first of them if costs are equal. `cells` (K, 5+C) raw
    predictions; `targets` (N, 6) as in `match_anchors`.
    """
    if not len(candidates.target):
        return candidates.target
    assigned = torch.full_like(candidates.target, -1)
    if candidates.table.shape[-1]:
        assigned = _assign_in_table(candidates, cells, targets, num_ious)
    for crowd in candidates.crowds:
        background, as_object = classification_costs(cells[crowd.members[crowd.first]])
        boxes_xyxy = cxcywh_to_xyxy(candidates.decode(cells, crowd.members[crowd.first]))
        position = assign_crowd(crowd, boxes_xyxy, as_object + background[:, None], targets[crowd.targets], num_ious)
        assigned[crowd.members] = torch.where(position < 0, -1, crowd.targets[position])
    return assigned


def _assign_in_table(candidates: Candidates, cells: Tensor, targets: Tensor, num_ious: int) -> Tensor:
    """`assign_ota` of all candidates in the table: costs are matrices (N, D, M)."""
    image, label = targets[:, 0].long(), targets[:, 1].long()
    as_background, as_object = classification_costs(cells)

    # Padding for index -1, at the end of short rows of the table: an empty box, an infinite cost.
    predicted_xyxy = F.pad(cxcywh_to_xyxy(candidates.decode(cells)).T, (0, 1))[:, candidates.table]
    as_background = F.pad(as_background, (0, 1), value=float("inf"))[candidates.table]

    target_xyxy = cxcywh_to_xyxy(targets[:, 2:])[:, None, None]
    predicted_xyxy = predicted_xyxy.index_select(1, image).movedim(0, -1)  # (N, D, M, 4)
    iou = intersection_over_union(target_xyxy, predicted_xyxy)
    members = candidates.table.index_select(0, image)
    cost = as_object[members, label[:, None, None]] + as_background.index_select(0, image)
    cost -= IOU_COST_GAIN * (iou + MIN_IOU).log_()

    max_k = min(num_ious, iou.shape[-1])
    dynamic_k = iou.topk(max_k).values.sum(-1, keepdim=True).long().clamp(1, max_k)
    claimed = _lowest_costs(cost, dynamic_k, max_k) & cost.isfinite()
    return _resolve_conflicts(cost, claimed, image, candidates)


def _lowest_costs(cost: Tensor, k: Tensor, max_k: int) -> Tensor:
    """Mark the k (..., 1) lowest costs of each row of (..., M), the last ones if costs are equal.

    Equal costs are common: two targets may propose the same prediction. `topk` breaks such ties
    differently from device to device, hence only its values are used. 1 <= k <= max_k.
    """
    lowest = cost.topk(max_k, largest=False).values
    limit = lowest.gather(-1, k - 1)
    num_equal = k - (lowest < limit).sum(-1, keepdim=True)
    equal = cost == limit
    rank = equal.cumsum(-1, dtype=torch.int32)
    return (cost < limit) | (equal & (rank > rank[..., -1:] - num_equal))


def _resolve_conflicts(cost: Tensor, claimed: Tensor, image: Tensor, candidates: Candidates) -> Tensor:
    """At most one target per candidate: costs and claims (N, D, M) to target indices (K,), -1 for none.

    Rows of one image (N,) are reduced together, as minima and sums over the table (B, D, M).
    """
    rows = image[:, None, None].expand_as(cost)
    shape, unassigned = candidates.table.shape, len(cost)
    contested = cost.new_zeros(shape).index_add_(0, image, claimed.to(cost.dtype)) > 1
    lowest = cost.new_full(shape, float("inf")).scatter_reduce_(0, rows, cost, "amin")
    cheapest = cost == lowest.index_select(0, image)
    is_assigned = torch.where(contested.index_select(0, image), cheapest, claimed)
    target = torch.where(is_assigned, torch.arange(unassigned, device=cost.device)[:, None, None], unassigned)
    assigned = torch.full_like(candidates.table, unassigned).scatter_reduce_(0, rows, target, "amin")
    assigned = F.pad(assigned.view(-1), (0, 1), value=unassigned)[candidates.slot]
    return torch.where(assigned < unassigned, assigned, -1)


def classification_costs(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy, summed over classes, of raw predictions (K, 5+C): as background (K,),
    and what being an object of each class adds to it (K, C).

    The probability is y = sqrt(P(class) P(object)) = 1 / s with s = sqrt(1 + z) and, of the odds
    against class and object, z = c + o + c o. So 1 - y is z / (s (s + 1)): no cancellation,
    and finite for any logit.
    """
    odds = cells[:, 4:].clamp(-MAX_LOGIT, MAX_LOGIT).neg_().exp_()
    odds_object = odds[:, :1]
    z = (odds[:, 1:] * (odds_object + 1)).add_(odds_object)
    s = (z + 1).sqrt_()
    as_object = z.div_(s + 1).log_()
    return (s.log_() - as_object).sum(1), as_object
