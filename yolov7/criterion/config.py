"""Hyperparameters of the criterion."""

from dataclasses import dataclass, replace
from typing import Literal, Self


@dataclass(frozen=True)
class LossConfig:
    """Hyperparameters of the criterion."""

    assigner: Literal["anchor", "ota"] = "ota"
    box_gain: float = 0.05
    objectness_gain: float = 0.7
    classification_gain: float = 0.3
    scale_gains: bool = True
    """Gains are for 80 classes at 640 px and shrink with both, as in the reference implementation; false: as given."""
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
    """Where the auxiliary head's labels come from (paper section 4.2, figure 5)."""
    auxiliary_gain: float = 0.25
    constrain_auxiliary: bool = False
    """Bound the objectness that a positive of the auxiliary head learns by its distance to the object,
    so that coarse positives never look as good as fine ones (paper section 4.2, Table 7)."""
    class_balance_beta: float = 0.0
    """0 weighs all classes alike; 0.9 to 0.9999 rare ones up, by their effective number of objects;
    close to 1 it is inverse frequency."""

    def scaled_to(self, num_classes: int, num_levels: int, image_size_px: int) -> Self:
        """The same recipe for another number of classes, levels and image size: gains are tuned
        for 80 classes, 3 levels and 640 pixels. Without ``scale_gains`` only the levels count."""
        if not self.scale_gains:
            num_classes, image_size_px = 80, 640
        per_level = 3 / num_levels
        return replace(
            self,
            box_gain=self.box_gain * per_level,
            classification_gain=self.classification_gain * num_classes / 80 * per_level,
            objectness_gain=self.objectness_gain * (image_size_px / 640) ** 2 * per_level,
        )
