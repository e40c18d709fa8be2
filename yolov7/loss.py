"""The criterion: raw outputs and targets to one loss, for every head and every way of assignment.

B images · L levels · A anchors · N targets · C classes · K candidates · H W cells
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolov7.assign import (
    COARSE_REACH,
    FINE_REACH,
    Candidates,
    assign_ota,
    match_anchors,
    send,
)
from yolov7.boxes import bbox_iou

NUM_IOUS = 10
NUM_IOUS_AUXILIARY = 20
"""Overlaps that are summed to the dynamic k; with an auxiliary head, for lead and auxiliary alike."""

FOCAL_ALPHA = 0.25


@dataclass(frozen=True)
class LossConfig:
    """Hyperparameters of the criterion."""

    assigner: Literal["anchor", "ota"] = "ota"
    box_gain: float = 0.05
    objectness_gain: float = 0.7
    classification_gain: float = 0.3
    objectness_positive_weight: float = 1.0
    classification_positive_weight: float = 1.0
    anchor_ratio_threshold: float = 4.0
    """An anchor may differ from its target by less than this factor on either side."""
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    """0 is plain cross-entropy; 1.5 to 2 weighs easy examples down (focal loss)."""
    iou_ratio: float = 1.0
    """Objectness target: 0 is 1 for every positive, 1 is the overlap of the predicted box."""
    auxiliary: Literal["none", "independent", "lead-guided", "coarse-to-fine"] = "coarse-to-fine"
    """Whence the auxiliary head's labels come (paper section 4.2, figure 5)."""
    auxiliary_gain: float = 0.25

    def scaled_to(self, num_classes: int, num_levels: int, image_size_px: int) -> Self:
        """The same recipe for another number of classes, levels and image size: gains are tuned
        for 80 classes, 3 levels and 640 pixels."""
        per_level = 3 / num_levels
        return replace(
            self,
            box_gain=self.box_gain * per_level,
            classification_gain=self.classification_gain * num_classes / 80 * per_level,
            objectness_gain=self.objectness_gain * (image_size_px / 640) ** 2 * per_level,
        )


class LossTerms(NamedTuple):
    """`total` is B times the sum of the terms and carries the gradient; the terms are detached."""

    total: Tensor
    box: Tensor
    objectness: Tensor
    classification: Tensor


class ReadCells(torch.autograd.Function):
    """A level's objectness map and some of its cells, with one dense gradient for both.

    Indexing the output twice would make autograd fill two dense gradients and add them; they are
    nearly all of the backward pass. Any memory layout is read and given back without a copy.
    """

    @staticmethod
    def forward(ctx, output: Tensor, *indices: Tensor) -> tuple[Tensor, Tensor]:
        """Output (B, A, H, W, 5+C), indices 4 x (K,) -> (B, A, H, W) and (K, 5+C), >= float32."""
        ctx.save_for_backward(*indices)
        ctx.layout = torch.empty_like(output, device="meta")
        ctx.device = output.device
        dtype = torch.promote_types(output.dtype, torch.float32)
        objectness = output[..., 4].to(dtype, copy=True, memory_format=torch.contiguous_format)
        return objectness, output[indices].to(dtype)

    @staticmethod
    def backward(ctx, objectness_grad: Tensor, cells_grad: Tensor):
        grad = zeros_like(ctx.layout, ctx.device)
        grad[..., 4] = objectness_grad
        grad.index_put_(ctx.saved_tensors, cells_grad.to(grad.dtype), accumulate=True)
        return grad, None, None, None, None


def zeros_like(layout: Tensor, device: torch.device) -> Tensor:
    """Zeros with the shape, strides and dtype of `layout` (on "meta").

    On the CPU by calloc through NumPy, which asks for huge pages: filling memory that is new to
    the process takes three times as long, almost all of it page faults.
    """
    if device.type != "cpu":
        return torch.zeros_like(layout, device=device)
    memory = numpy.zeros(layout.numel() * layout.element_size(), numpy.uint8)
    return torch.from_numpy(memory).view(layout.dtype).as_strided(layout.shape, layout.stride())


class Criterion(nn.Module):
    """Loss of a detector with L levels, or 2 L outputs where there is an auxiliary head.

    Per level, then summed over levels: 1 - CIoU and class cross-entropy over the positives, and
    objectness cross-entropy over every cell, weighted by level; each with its gain.
    """

    def __init__(
        self, anchors_px, strides: Sequence[int], num_classes: int, config: LossConfig | None = None
    ):
        """`anchors_px` (L, A, 2) in pixels, `strides` of the L levels in pixels."""
        super().__init__()
        # Not a buffer: matching happens on the host, where the targets are.
        self.anchors_px = torch.as_tensor(anchors_px).detach().cpu()
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.config = config or LossConfig()
        num_levels = len(self.strides)
        self.level_gains = (4.0, 1.0, 0.4) if num_levels == 3 else (4.0, 1.0, 0.25, 0.06, 0.02)

    @classmethod
    def for_model(cls, model, config: LossConfig | None = None) -> Self:
        """The criterion of a `yolov7.model.YOLO`."""
        return cls(model.anchors_px, model.strides, model.num_classes, config)

    def forward(self, outputs: Sequence[Tensor], targets: Tensor) -> LossTerms:
        """`outputs`: (B, A, H, W, 5+C) per level, lead first, then auxiliary. `targets` (N, 6):
        image, class, cx, cy, w, h, normalised; best left on the CPU, where they are matched.

        Where several targets meet in one cell, each has its box and class terms there; objectness
        learns from the last of them in the order neighbour, anchor, target.
        """
        num_levels, config = len(self.strides), self.config
        lead, auxiliary = list(outputs[:num_levels]), list(outputs[num_levels:])
        self._check(len(outputs), targets)
        if config.auxiliary == "none":
            auxiliary = []
        host_targets = self._in_pixels(targets, lead)
        targets = send(host_targets, lead[0].device)
        num_ious = NUM_IOUS_AUXILIARY if auxiliary else NUM_IOUS

        candidates = self._match(host_targets, lead, FINE_REACH)
        maps, cells = self._read(lead, candidates)
        owner = self._assign(candidates, cells, targets, num_ious)
        terms = self._head_terms(maps, cells, candidates, owner, targets)
        if auxiliary:
            guide = cells
            if config.auxiliary == "coarse-to-fine":
                candidates = self._match(host_targets, lead, COARSE_REACH)
                guide = candidates.read([output.detach() for output in lead])
            maps, cells = self._read(auxiliary, candidates)
            if config.auxiliary == "independent":
                guide = cells
            if config.auxiliary != "lead-guided":
                owner = self._assign(candidates, guide, targets, num_ious)
            head_terms = self._head_terms(maps, cells, candidates, owner, targets)
            terms = terms + config.auxiliary_gain * head_terms
        return LossTerms(len(lead[0]) * terms.sum(), *terms.detach())

    def _check(self, num_outputs: int, targets: Tensor) -> None:
        """Raise ValueError unless outputs and targets are what this criterion can work with."""
        num_levels = len(self.strides)
        if num_outputs not in (num_levels, 2 * num_levels):
            raise ValueError(
                f"criterion: {num_outputs} outputs arrived; a model of {num_levels} levels gives "
                f"{num_levels}, or {2 * num_levels} with its auxiliary head"
            )
        if targets.ndim != 2 or targets.shape[1] != 6:
            raise ValueError(
                f"criterion: targets have shape {tuple(targets.shape)}; "
                "(N, 6) holds image, class, cx, cy, w, h"
            )

    def _in_pixels(self, targets: Tensor, outputs: list[Tensor]) -> Tensor:
        """Targets (N, 6) on the host: image, class, cx, cy, w, h in pixels of the outputs' images."""
        first, stride_px = outputs[0], self.strides[0]
        targets = targets.detach().cpu().to(torch.promote_types(first.dtype, torch.float32))
        for column, name, limit in ((0, "image", len(first)), (1, "class", self.num_classes)):
            impossible = ~((targets[:, column] >= 0) & (targets[:, column] < limit))
            if impossible.any():
                raise ValueError(
                    f"criterion: a target has {name} {targets[impossible, column][0]:g}; "
                    f"0 to {limit - 1} are possible"
                )
        height_px, width_px = first.shape[2] * stride_px, first.shape[3] * stride_px
        return targets * targets.new_tensor((1, 1, width_px, height_px, width_px, height_px))

    def _match(self, host_targets: Tensor, outputs: list[Tensor], reach: float) -> Candidates:
        """Candidates by anchor, on the device of the outputs."""
        candidates = match_anchors(
            host_targets,
            self.anchors_px,
            self.strides,
            [(output.shape[2], output.shape[3]) for output in outputs],
            len(outputs[0]),
            self.config.anchor_ratio_threshold,
            reach,
        )
        return candidates.to(outputs[0].device)

    def _assign(
        self, candidates: Candidates, guide: Tensor, targets: Tensor, num_ious: int
    ) -> Tensor:
        """Target (K,) that each candidate serves, -1 for none, by the predictions `guide` (K, 5+C)."""
        if self.config.assigner == "anchor":
            return candidates.target
        return assign_ota(candidates, guide.detach().to(targets.dtype), targets, num_ious)

    def _read(
        self, outputs: list[Tensor], candidates: Candidates
    ) -> tuple[list[Tensor], Tensor]:
        """The objectness maps (B, A, H, W) of a head and its candidate cells (K, 5+C)."""
        pairs = zip(outputs, candidates.indices_per_level(), strict=True)
        maps, cells = zip(*(ReadCells.apply(output, *indices) for output, indices in pairs))
        return list(maps), torch.cat(cells)

    def _head_terms(
        self,
        maps: list[Tensor],
        cells: Tensor,
        candidates: Candidates,
        owner: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Box, objectness and classification loss (3,) of one head, gains included."""
        config = self.config
        positive = owner >= 0
        served = targets[owner.clamp(min=0)]
        num_positive = cells.new_zeros(len(maps))
        num_positive.index_add_(0, candidates.level, positive.to(cells.dtype))
        weight = positive / num_positive.clamp(min=1)[candidates.level]

        overlap = bbox_iou(candidates.decode(cells), served[:, 2:], "ciou")
        box = (weight * (1 - overlap)).sum()
        label = 1 - config.iou_ratio + config.iou_ratio * overlap.detach().clamp(min=0)
        objectness = self._objectness_term(maps, cells[:, 4], candidates, label, positive)
        classification = self._classification_term(cells[:, 5:], served[:, 1].long(), weight)
        return torch.stack(
            (
                config.box_gain * box,
                config.objectness_gain * objectness,
                config.classification_gain * classification,
            )
        )

    def _objectness_term(
        self,
        maps: list[Tensor],
        logit: Tensor,
        candidates: Candidates,
        label: Tensor,
        positive: Tensor,
    ) -> Tensor:
        """Score the maps as if they were empty, then correct the positive cells among (K,).

        So no map of labels is ever made, and a cell's label is one number, not the last write.
        """
        weights = [gain / m.numel() for m, gain in zip(maps, self.level_gains)]
        empty = sum(w * self._binary_loss(m).sum() for m, w in zip(maps, weights, strict=True))
        sizes = candidates.num_per_level
        weight = torch.cat([logit.new_full((n,), w) for n, w in zip(sizes, weights, strict=True)])
        positive_weight = self.config.objectness_positive_weight
        correction = self._binary_loss(logit, label, positive_weight) - self._binary_loss(logit)
        counts = candidates.last_of_each_cell(positive)
        return empty + (counts * weight * correction).sum()

    def _classification_term(self, logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        """Mean over classes of (K, C), summed over candidates with their weight (K,); 0 for one
        class, where objectness says it all."""
        if self.num_classes == 1:
            return logits.new_zeros(())
        off = self.config.label_smoothing / 2
        one_hot = torch.full_like(logits, off).scatter_(1, label[:, None], 1 - off)
        positive_weight = self.config.classification_positive_weight
        return (weight * self._binary_loss(logits, one_hot, positive_weight).mean(1)).sum()

    def _binary_loss(
        self, logit: Tensor, label: Tensor | None = None, positive_weight: float = 1.0
    ) -> Tensor:
        return binary_loss(logit, label, positive_weight, self.config.focal_gamma)


def binary_loss(
    logit: Tensor,
    label: Tensor | None = None,
    positive_weight: float = 1.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Elementwise cross-entropy of a logit with a label in [0, 1], by default 0 throughout.

    With gamma > 0 the focal loss: times alpha (1 - p)^gamma, p the probability of the right answer
    (Lin et al. 2017, eq. 5).
    """
    if label is None:
        loss = F.softplus(logit)
    else:
        pos_weight = None if positive_weight == 1 else logit.new_full((), positive_weight)
        loss = F.binary_cross_entropy_with_logits(
            logit, label, pos_weight=pos_weight, reduction="none"
        )
    if focal_gamma == 0:
        return loss
    label = torch.zeros_like(logit) if label is None else label
    probability = logit.sigmoid()
    wrong = label * (1 - probability) + (1 - label) * probability
    alpha = label * FOCAL_ALPHA + (1 - label) * (1 - FOCAL_ALPHA)
    return loss * alpha * wrong**focal_gamma
