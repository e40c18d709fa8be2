"""Keys of an export job."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...jobs.spec import URI, Fraction, ImageSize, ModelUse, Positive

Format = Literal["onnx", "torch", "safetensors"]


class ExportSpec(ModelUse):
    """Trained model -> files for other programs: folded, checked against the model."""

    kind: Literal["export"]
    output: URI
    """Directory; files of the same names there are replaced."""
    formats: Annotated[tuple[Format, ...], Field(min_length=1)] = ("onnx",)
    """onnx: ONNX Runtime, OpenVINO, TensorRT and others; torch: a torch.export program; safetensors: folded weights."""
    image_size_px: ImageSize | None = None
    """Default: as the model was trained."""
    any_size: bool = False
    """Images of any multiples of the stride, in place of squares of image_size_px."""
    nms: bool = False
    """With suppression in the graph: its output is (D, 7): image, x1, y1, x2, y2, score, class."""
    confidence_threshold: Fraction = 0.25
    iou_threshold: Fraction = 0.45
    max_detections: Positive = 100
    """Of an image, with nms."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest difference of scores, and of boxes as a share of the image's side, from the model that is accepted."""

    @model_validator(mode="after")
    def _check_formats(self) -> "ExportSpec":
        if len(set(self.formats)) < len(self.formats):
            raise ValueError(f"formats: {', '.join(self.formats)} names one twice")
        return self
