"""The criterion: raw outputs and targets to one loss, for every head and assignment method.

B images · D heads · L levels · A anchors · N targets · C classes · K candidates · H W cells · S cells
of all outputs, which are D L: lead levels first, then auxiliary.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .assignment import (
    COARSE_REACH,
    CROWD_PAIRS,
    CROWD_PAIRS_GPU,
    FINE_REACH,
    Candidates,
    assign_ota,
    match_anchors,
    to_device,
)
from .boxes import bbox_iou
from .cells import ReadCells
from .config import LossConfig

NUM_IOUS = 10
NUM_IOUS_AUXILIARY = 20
"""Number of largest IoUs summed to the dynamic k; the second one for both heads if there is an auxiliary head."""

LEVEL_GAINS = {3: (4.0, 1.0, 0.4)}
DEFAULT_LEVEL_GAINS = (4.0, 1.0, 0.25, 0.06, 0.02)
"""Weight of each level's objectness, fine to coarse, for 3 levels and otherwise."""

FOCAL_ALPHA = 0.25


class LossTerms(NamedTuple):
    """`total` is B times the sum of the terms and carries the gradient; the terms are detached."""

    total: Tensor
    box: Tensor
    objectness: Tensor
    classification: Tensor


class Criterion(nn.Module):
    """Loss of a detector with L levels, or 2 L outputs where there is an auxiliary head.

    Per output, then summed over them: 1 - CIoU and class cross-entropy over the positives, and
    objectness cross-entropy over every cell, weighted by level; each with its gain. The auxiliary
    head is treated as L more levels with their own gain.
    """

    def __init__(
        self,
        anchors_px,
        strides: Sequence[int],
        num_classes: int,
        config: LossConfig | None = None,
        class_counts: Sequence[int] | None = None,
    ):
        """`anchors_px` (L, A, 2) in pixels, `strides` of the L levels in pixels, `class_counts` (C,)
        objects of each class in the training data, needed by `class_balance_beta` alone."""
        super().__init__()
        # Not a buffer: matching happens on the host, where the targets are.
        self.anchors_px = torch.as_tensor(anchors_px).detach().cpu()
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.config = config or LossConfig()
        self.class_weights = self._class_balanced_weights(class_counts) if self.config.class_balance_beta else None

    @classmethod
    def for_model(
        cls, model, config: LossConfig | None = None, class_counts: Sequence[int] | None = None
    ) -> Self:
        """The criterion of a `yolov7.model.detector.YOLO`."""
        return cls(model.anchors_px, model.strides, model.num_classes, config, class_counts)

    def forward(self, outputs: Sequence[Tensor], targets: Tensor) -> LossTerms:
        """`outputs`: (B, A, H, W, 5+C) per level, lead first, then auxiliary. `targets` (N, 6):
        image, class, cx, cy, w, h, normalised; preferably on the CPU, where they are matched.

        If several targets share a cell, each has its box and class terms there; the objectness label
        comes from the last of them in the order neighbour, anchor, target. Reordering the targets may
        thus change that label, but the same order gives the same label on every device.
        """
        self._check(len(outputs), targets)
        if self.config.auxiliary == "none":
            outputs = outputs[: len(self.strides)]
        host_targets = self._in_pixels(targets, outputs[0])
        candidates = self._match(host_targets, outputs).to(outputs[0].device)
        targets = to_device(host_targets, outputs[0].device)

        objectness, cells = ReadCells.apply(candidates.indices_per_output(), *outputs)
        assigned = self._assign(candidates, self._guide(cells, candidates, outputs), targets)
        sizes = [output[..., 4].numel() for output in outputs]
        terms = self._terms(objectness, sizes, cells, candidates, assigned, targets)
        return LossTerms(len(outputs[0]) * terms.sum(), *terms.detach())

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

    def _class_balanced_weights(self, class_counts: Sequence[int] | None) -> Tensor:
        """Weights of the classes; ValueError unless their counts fit and beta is below 1."""
        beta = self.config.class_balance_beta
        if not 0 < beta < 1:
            raise ValueError(f"criterion: class_balance_beta is {beta}; 0 to below 1 works")
        if class_counts is None or len(class_counts) != self.num_classes:
            arrived = "no" if class_counts is None else len(class_counts)
            raise ValueError(
                f"criterion: {arrived} class counts arrived; class_balance_beta needs the number of "
                f"objects of each of the {self.num_classes} classes"
            )
        return balanced_weights(class_counts, beta)

    def _in_pixels(self, targets: Tensor, output: Tensor) -> Tensor:
        """Targets (N, 6) on the host: image, class, cx, cy, w, h in pixels of the finest output's
        images."""
        targets = targets.detach().cpu().to(torch.promote_types(output.dtype, torch.float32))
        indices, limits = targets[:, :2], (len(output), self.num_classes)
        invalid = ~((indices >= 0) & (indices < indices.new_tensor(limits)))
        if invalid.any():
            row, column = invalid.nonzero()[0].tolist()
            raise ValueError(
                f"criterion: a target has {('image', 'class')[column]} {indices[row, column]:g}; "
                f"0 to {limits[column] - 1} are possible"
            )
        if not targets.isfinite().all():
            raise ValueError("criterion: a target's box is not finite; give cx, cy, w, h in [0, 1]")
        height_px, width_px = (size * self.strides[0] for size in output.shape[2:4])
        return targets * targets.new_tensor((1, 1, width_px, height_px, width_px, height_px))

    def _match(self, host_targets: Tensor, outputs: Sequence[Tensor]) -> Candidates:
        """Candidates by anchor of the lead head, and of the auxiliary head if there is one."""
        coarse = self.config.auxiliary == "coarse-to-fine"
        reaches = (FINE_REACH, COARSE_REACH if coarse else FINE_REACH)
        num_levels = len(self.strides)
        return match_anchors(
            host_targets,
            self.anchors_px,
            self.strides,
            [(output.shape[2], output.shape[3]) for output in outputs[:num_levels]],
            len(outputs[0]),
            self.config.anchor_ratio_threshold,
            reaches[: len(outputs) // num_levels],
            CROWD_PAIRS if outputs[0].device.type == "cpu" else CROWD_PAIRS_GPU,
        )

    def _guide(
        self, cells: Tensor, candidates: Candidates, outputs: Sequence[Tensor]
    ) -> Tensor:
        """Predictions (K, 5+C) that guide the assignment: the lead head's for both heads, or each head's
        own if they are independent."""
        lead = outputs[: len(self.strides)]
        auxiliary = candidates.indices_per_output()[len(lead) :]
        if not auxiliary or self.config.auxiliary == "independent":
            return cells.detach()
        lead_predictions = [output.detach()[index] for output, index in zip(lead, auxiliary, strict=True)]
        num_lead = sum(candidates.num_per_output[: len(lead)])
        return torch.cat((cells.detach()[:num_lead], *lead_predictions))

    def _assign(self, candidates: Candidates, guide: Tensor, targets: Tensor) -> Tensor:
        """Index (K,) of the target that each candidate is assigned to, -1 for none."""
        if self.config.assigner == "anchor":
            return candidates.target
        num_ious = NUM_IOUS_AUXILIARY if candidates.table.shape[1] > 1 else NUM_IOUS
        return assign_ota(candidates, guide, targets, num_ious)

    def _terms(
        self,
        objectness: Tensor,
        sizes: Sequence[int],
        cells: Tensor,
        candidates: Candidates,
        assigned: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Box, objectness and classification loss (3,), gains included. `objectness` (S,) of the
        outputs, which have `sizes` cells each; `cells` (K, 5+C)."""
        config, positive = self.config, assigned >= 0
        matched = targets[assigned.clamp(min=0)]
        gains, map_gains = self._output_gains(sizes, cells)
        weight = positive.to(cells.dtype)
        num_positive = torch.zeros_like(gains).index_add_(0, candidates.output, weight)
        weight = weight * (gains / num_positive.clamp(min=1))[candidates.output]

        overlap = bbox_iou(candidates.decode(cells), matched[:, 2:], "ciou")
        box = (weight * (1 - overlap)).sum()
        background = [part.sum() for part in self._binary_loss(objectness).split(sizes)]
        label = self._objectness_label(overlap.detach(), candidates, matched[:, 2:4])
        correction = self._objectness_correction(cells[:, 4], label, candidates, positive)
        objectness = (map_gains * torch.stack(background)).sum()
        objectness = objectness + (map_gains[candidates.output] * correction).sum()
        classification = self._classification_term(cells[:, 5:], matched[:, 1].long(), weight)
        return torch.stack(
            (
                config.box_gain * box,
                config.objectness_gain * objectness,
                config.classification_gain * classification,
            )
        )

    def _output_gains(self, sizes: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Weight of each output (D L,), and of the objectness of one of its cells (D L,)."""
        num_levels = len(self.strides)
        heads = [1.0] * num_levels + [self.config.auxiliary_gain] * num_levels
        levels = LEVEL_GAINS.get(num_levels, DEFAULT_LEVEL_GAINS)[:num_levels] * 2
        maps = [head * level / n for head, level, n in zip(heads, levels, sizes)]
        gains = torch.tensor((heads[: len(sizes)], maps), dtype=like.dtype)
        return to_device(gains, like.device).unbind()

    def _objectness_label(
        self, overlap: Tensor, candidates: Candidates, centres_px: Tensor
    ) -> Tensor:
        """Soft objectness label (K,) of candidates from the overlap with their targets.

        With `constrain_auxiliary`, the label of an auxiliary cell whose centre is d cells from the
        object's (Chebyshev distance) is at most 2 - d, no less than 0. The paper gives no formula; this
        one leaves every fine positive unchanged (d below 1, the decoder's range) and bounds the extra
        coarse ones (d from 1 to 1.5) by 1 down to 1/2, continuously.
        """
        ratio = self.config.iou_ratio
        label = 1 - ratio + ratio * overlap.clamp(min=0)
        if not self.config.constrain_auxiliary:
            return label
        bound = (2 - candidates.distance(centres_px)).clamp(0, 1)
        auxiliary = candidates.output >= len(self.strides)
        return torch.where(auxiliary, label.minimum(bound), label)

    def _objectness_correction(
        self, logit: Tensor, label: Tensor, candidates: Candidates, positive: Tensor
    ) -> Tensor:
        """Loss of positive cells (K,) minus their loss as background.

        The loss of a map is computed as background, then corrected, so no label map is allocated, and a
        cell's label is well defined, independent of write order.
        """
        positive_weight = self.config.objectness_positive_weight
        correction = self._binary_loss(logit, label, positive_weight) - self._binary_loss(logit)
        return correction * candidates.last_of_each_cell(positive)

    def _classification_term(self, logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        """Mean over classes of (K, C), summed over candidates with their weight (K,); 0 for one
        class, where objectness is sufficient."""
        if self.num_classes == 1:
            return logits.new_zeros(())
        off_value = self.config.label_smoothing / 2
        one_hot = torch.full_like(logits, off_value).scatter_(1, label[:, None], 1 - off_value)
        if self.class_weights is not None:
            weight = weight * to_device(self.class_weights.to(weight.dtype), weight.device)[label]
        positive_weight = self.config.classification_positive_weight
        return (weight * self._binary_loss(logits, one_hot, positive_weight).mean(1)).sum()

    def _binary_loss(
        self, logit: Tensor, label: Tensor | None = None, positive_weight: float = 1.0
    ) -> Tensor:
        return binary_loss(logit, label, positive_weight, self.config.focal_gamma)


def balanced_weights(class_counts: Sequence[int], beta: float) -> Tensor:
    """Weight of each class (C,), 1 on average: the inverse of its effective number of objects,
    (1 - beta^n) / (1 - beta) of n (Cui et al. 2019, section 4). A class without objects counts as
    one with a single one."""
    counts = torch.as_tensor(class_counts, dtype=torch.float64).clamp(min=1)
    weights = 1 / -torch.expm1(counts * math.log(beta))
    return weights / weights.mean()


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
    wrong = wrong.clamp(min=torch.finfo(wrong.dtype).tiny)  # 0 ** gamma has no gradient for gamma < 1
    alpha = label * FOCAL_ALPHA + (1 - label) * (1 - FOCAL_ALPHA)
    return loss * alpha * wrong**focal_gamma
