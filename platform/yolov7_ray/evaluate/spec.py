"""Keys of an evaluate job, and of the evaluations within training."""

from typing import Literal

from ..jobs.spec import URI, Fraction, ImageSize, ModelUse, Name, Part, Positive, Reading, Resources


class Evaluation(Part):
    """How validation is done."""

    every_epochs: Positive = 1
    """Validate after every so many epochs, and after the last."""
    batch_size: Positive | None = None
    """Images per worker and step; default: that of training."""
    confidence_threshold: Fraction = 0.001
    """Detections below are dropped before NMS."""
    iou_threshold: Fraction = 0.65
    """Overlap at which NMS drops the weaker of two detections."""
    multi_label: bool = True
    """Whether one box may stand for several classes."""
    class_agnostic: bool = False
    """Whether boxes suppress boxes of other classes too."""
    rectangular: bool = False
    """Pad images to their batch's common shape instead of a square: quicker, and the AP moves a little."""
    test_time_augmentation: bool = False
    """Look at every image in three scales, once mirrored: a better AP at 2.1 times the cost."""


class EvaluateSpec(ModelUse):
    """Model x dataset split -> COCO AP, plots and results.json."""

    kind: Literal["evaluate"]
    dataset: URI
    split: Name = "val"
    storage: URI = "runs"
    """Results go to <storage>/<run name>."""
    image_size_px: ImageSize | None = None
    """Default: as the model was trained."""
    data: Reading = Reading()
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()
