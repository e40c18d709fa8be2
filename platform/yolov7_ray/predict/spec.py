"""Keys of a predict job."""

from typing import Literal

from ..detect.options import MAX_DETECTIONS
from ..engines.names import EngineName, Precision
from ..jobs.spec import URI, Fraction, ImageSize, ModelUse, Name, Positive, Resources


class PredictSpec(ModelUse):
    """Model x images -> detections, with Ray Data."""

    kind: Literal["predict"]
    images: URI
    """A directory of images, or an Arrow dataset."""
    split: Name = "val"
    """Split, where `images` is an Arrow dataset."""
    output: URI
    """Directory for the results."""
    format: Literal["arrow", "coco", "csv", "yolo"] = "arrow"
    """yolo: a text file for each image, `class cx cy w h score` in shares of its size, and classes.txt."""
    draw: bool = False
    """Write every image with its detections drawn, too, and a contact sheet of the first ones."""
    image_size_px: ImageSize | None = None
    """Longer side; default: as the model was trained."""
    rectangular: bool = True
    """Pad each image to the least multiples of the model's stride instead of a square: fewer pixels, same scale."""
    confidence_threshold: Fraction = 0.25
    iou_threshold: Fraction = 0.45
    max_detections: Positive = MAX_DETECTIONS
    """Most detections of one image, the best ones."""
    multi_label: bool = True
    """Whether one box may stand for several classes."""
    class_agnostic: bool = False
    """Whether boxes suppress boxes of other classes too."""
    test_time_augmentation: bool = False
    """Look at every image in three scales, once mirrored: better, at 2.1 times the cost."""
    reduced_decoding: bool = False
    """Decode JPEGs of many pixels at 1/2, 1/4 or 1/8 of their size: faster, and the pixels differ a little."""
    batch_size: Positive = 16
    engine: EngineName = "torch"
    """auto: the fastest of those installed, as published, else by measurement on each worker."""
    precision: Precision | Literal["auto"] = "fp32"
    """auto: with the engine auto that of the fastest published one; else bf16 on a GPU, fp32 on a CPU."""
    resources: Resources = Resources()
