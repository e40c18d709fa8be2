"""Label assignment in crowded images, where the matrices of `assignment.assign_ota` would be too large.

Same rule, same answer, other means: predictions that several targets propose are looked at once, overlaps are
computed for a few targets at a time so that they stay in the cache, and costs only where the overlap leaves
a chance to be among the lowest.

N targets, n of them at a time · K candidates · U different predictions among them · C classes, of one image and head
P pairs of target and prediction
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import EPSILON, cxcywh_to_xyxy

ROWS = 48
"""Targets at a time, n."""

IOU_COST_GAIN = 3.0
"""Weight of the box cost relative to the classification cost (OTA, section 3.1; SimOTA of YOLOX)."""

MIN_IOU = 1e-8
"""Added to overlaps, so that the cost of none is finite."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """The candidates and targets of one crowded image and head."""

    members: Tensor  # (K,) int64, indices of its candidates, ascending
    targets: Tensor  # (N,) int64, indices of its targets, ascending
    unique: Tensor  # (K,) int64 in [0, U): which prediction a candidate is
    multiplicity: Tensor  # (U,) int64: candidates of each prediction
    first: Tensor  # (U,) int64: one of them, as an index into `members`


def assign_crowd(crowd: Crowd, boxes_xyxy: Tensor, costs: Tensor, targets: Tensor, num_ious: int) -> Tensor:
    """Position (K,) in the crowd of the target that each candidate is assigned to, or -1, as `assign_ota` would.

    `boxes_xyxy` (U, 4) and `costs` (U, C), of being an object of a class, of the predictions; `targets` (N, 6) as in
    `match_anchors`. Synchronises with a GPU several times.
    """
    label, target_xyxy = targets[:, 1].long(), cxcywh_to_xyxy(targets[:, 2:])
    base = costs.T.contiguous()
    edges = boxes_xyxy.T.contiguous()
    num_candidates = len(crowd.members)
    target, prediction, cost, dynamic_k = _lowest_pairs(crowd, edges, base, label, target_xyxy, num_ious)
    target, candidate = _claims(crowd, target, prediction, cost, dynamic_k)
    assigned = torch.full((num_candidates,), -1, device=label.device).index_copy_(0, candidate, target)
    contested = torch.bincount(candidate, minlength=num_candidates) > 1
    columns = crowd.unique[contested].unique()
    cheapest = torch.full_like(crowd.first, -1)
    cheapest[columns] = _cheapest_targets(edges[:, columns], base[:, columns], label, target_xyxy)
    return torch.where(contested, cheapest[crowd.unique], assigned)


def _lowest_pairs(crowd: Crowd, edges: Tensor, base: Tensor, label: Tensor, target_xyxy: Tensor, num_ious: int):
    """Target, prediction and cost (P,) of all pairs that may be among a target's k lowest, and k (N,).

    A pair costs at least the lowest classification cost of its class, hence is no lower than a bound unless its
    overlap is at least exp((that cost - bound) / gain). Where even no overlap will do, all predictions are looked at.
    """
    max_k = min(num_ious, len(crowd.members))
    everything = torch.arange(edges.shape[1], device=label.device)
    lowest_base, dynamic_k = base.amin(1), torch.empty_like(label)
    found = []
    for rows in _neighbours(target_xyxy).split(ROWS):
        frame = torch.cat((target_xyxy[rows, :2].amin(0), target_xyxy[rows, 2:].amax(0)))
        touching = (edges[:2] < frame[2:, None]) & (edges[2:] > frame[:2, None])
        near = (touching[0] & touching[1]).nonzero()[:, 0]
        for columns in (near, everything):
            if len(columns) < min(max_k, len(everything)):
                continue
            iou = _overlaps(target_xyxy[rows], edges.index_select(1, columns))
            k, bound = _bounds(crowd.multiplicity[columns], iou, base, label[rows], columns, max_k)
            least_iou = ((lowest_base[label[rows], None] - bound) / IOU_COST_GAIN).exp() * (1 - 1e-4) - MIN_IOU
            if (least_iou > 0).all():
                break
        row, column = (iou >= least_iou).nonzero(as_tuple=True)
        cost = base[label[rows][row], columns[column]] - IOU_COST_GAIN * (iou[row, column] + MIN_IOU).log()
        low = (cost <= bound[row, 0]).nonzero()[:, 0]
        found.append((rows[row[low]], columns[column[low]], cost[low]))
        dynamic_k[rows] = k
    return *(torch.cat(parts) for parts in zip(*found, strict=True)), dynamic_k


def _overlaps(target_xyxy: Tensor, edges: Tensor) -> Tensor:
    """`intersection_over_union` of every target (n, 4) and box (4, U), coordinate by coordinate: three times as fast
    as from rows of four, and the same to the bit."""
    ax1, ay1, ax2, ay2 = target_xyxy.T[..., None]
    bx1, by1, bx2, by2 = edges
    overlap = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1)).clamp_(min=0)
    overlap *= torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1)).clamp_(min=0)
    union = ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)).sub_(overlap)
    return overlap.div_(union.clamp_(min=EPSILON**2))


def _neighbours(target_xyxy: Tensor) -> Tensor:
    """An order of targets in which those that follow each other are of similar size and place."""
    side = (target_xyxy[:, 2:] - target_xyxy[:, :2]).amax(1).clamp(min=1)
    octave = side.log2().floor()
    x, y = ((target_xyxy[:, :2] + target_xyxy[:, 2:]) / 2 ** (octave[:, None] + 1)).floor().clamp(0, 999).T
    return (octave * 1e6 + x * 1e3 + y).argsort()


def _bounds(multiplicity: Tensor, iou: Tensor, base: Tensor, label: Tensor, columns: Tensor, max_k: int):
    """k (n,) of each target, and an upper bound (n, 1) of its k-th lowest cost: that among its largest overlaps."""
    places = torch.arange(max_k, device=iou.device)
    largest, index = iou.topk(min(max_k, iou.shape[1]))
    count = multiplicity[index]
    repeated = (count.cumsum(1)[:, None] <= places[:, None]).sum(-1)
    k = largest.gather(1, repeated).sum(1, keepdim=True).long().clamp(1, max_k)
    cost, order = (base[label[:, None], columns[index]] - IOU_COST_GAIN * (largest + MIN_IOU).log()).sort(1)
    bound = cost.gather(1, (count.gather(1, order).cumsum(1) < k).sum(1, keepdim=True))
    return k[:, 0], bound + 1e-4 * bound.abs()


def _claims(crowd: Crowd, target: Tensor, prediction: Tensor, cost: Tensor, dynamic_k: Tensor) -> tuple[Tensor, Tensor]:
    """Target and candidate of every claim: for each target the candidates of its k lowest costs, the last ones if
    costs are equal, from pairs (P,) of target and prediction with their cost."""
    count = crowd.multiplicity[prediction]
    by_prediction = crowd.unique.argsort(stable=True)
    first = crowd.multiplicity.cumsum(0) - crowd.multiplicity
    pair = torch.arange(len(count), device=count.device).repeat_interleave(count)
    within = torch.arange(len(pair), device=count.device) - (count.cumsum(0) - count)[pair]
    candidate = by_prediction[first[prediction[pair]] + within]
    order = candidate.argsort(descending=True)
    order = order[cost[pair[order]].argsort(stable=True)]
    order = order[target[pair[order]].argsort(stable=True)]
    target, candidate, cost = target[pair[order]], candidate[order], cost[pair[order]]
    per_target = torch.bincount(target, minlength=len(dynamic_k))
    rank = torch.arange(len(target), device=target.device) - (per_target.cumsum(0) - per_target)[target]
    claimed = (rank < dynamic_k[target]) & cost.isfinite()
    return target[claimed], candidate[claimed]


def _cheapest_targets(edges: Tensor, base: Tensor, label: Tensor, target_xyxy: Tensor) -> Tensor:
    """Of all targets, the one with the lowest cost for each of U predictions, the first if costs are equal."""
    lowest = torch.full_like(base[0], float("inf"))
    cheapest = torch.zeros(edges.shape[1], dtype=torch.int64, device=base.device)
    for rows in torch.arange(len(label), device=label.device).split(ROWS):
        iou = _overlaps(target_xyxy[rows], edges)
        cost, index = (base.index_select(0, label[rows]) - IOU_COST_GAIN * (iou + MIN_IOU).log_()).min(0)
        cheapest = torch.where(cost < lowest, rows[index], cheapest)
        lowest = torch.minimum(cost, lowest)
    return cheapest
