"""An ONNX file of a detector, and what it says of itself.

B images · N predictions · C classes · D detections of the whole batch · H W side of the images
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import JobError

WHAT_WORKS = ("give one with the input (B, 3, H, W) float32, RGB in [0, 1], and the output (B, N, 5 + C): cx, cy, w, h "
              "in pixels, objectness, a score for each class; `python -m yolov7 export` writes such")
KEYS = ("classes", "strides", "image_size_px", "output_columns", "confidence_threshold", "iou_threshold")
"""Of the metadata."""
STRIDE_PX = 32
"""Where the file does not tell."""


@dataclass(frozen=True)
class Suppression:
    """Non-maximum suppression in the graph: its output is (D, 7): image, x1, y1, x2, y2, score, class."""

    confidence: float
    iou: float


@dataclass(frozen=True)
class OnnxFile:
    """A detector in ONNX."""

    data: bytes
    source: str
    classes: tuple[str, ...]
    image_size_px: int
    """0: nobody says."""
    stride_px: int
    any_size: bool
    """Whether height and width may be any multiples of the stride."""
    suppression: Suppression | None


def read_onnx(data: bytes, source: str) -> OnnxFile:
    """The file, with the metadata of `python -m yolov7 export`, or without any; JobError if it does not fit."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise JobError(source, f"is read with the package {error.name}, which is not installed",
                       "pip install 'yolov7-ray[onnxruntime]'") from error
    try:
        program = onnx.load_from_string(data)
    except DecodeError as error:
        raise JobError(source, "is no ONNX file", WHAT_WORKS) from error
    graph, metadata = program.graph, _metadata(program)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise JobError(source, "keeps its weights in another file", "save it as one file (`external_data=False`)")
    weights = {tensor.name for tensor in graph.initializer}
    shapes = [[_shape(value) for value in values] for values in (
        [value for value in graph.input if value.name not in weights], graph.output)]
    inputs, outputs = shapes
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][1] != 3:
        raise JobError(source, f"its inputs are {_words(inputs)}", WHAT_WORKS)
    element = next(value for value in graph.input if value.name not in weights).type.tensor_type.elem_type
    if element != onnx.TensorProto.FLOAT:
        raise JobError(source, f"takes images of type {onnx.TensorProto.DataType.Name(element)}", WHAT_WORKS)
    height, width = inputs[0][2:]
    if height != width and (height or width):
        raise JobError(source, f"its images are {_words([[height, width]])}", "export it for squares, or for any size")
    suppression = _suppression(metadata)
    num_classes = len(metadata.get("classes", ()))
    if suppression is None:
        if len(outputs) != 1 or len(outputs[0]) != 3 or (outputs[0][2] or 0) < 6:
            raise JobError(source, f"its outputs are {_words(outputs)}", WHAT_WORKS)
        num_classes = outputs[0][2] - 5
    classes = metadata.get("classes") or [f"class {label}" for label in range(num_classes)]
    if len(classes) != num_classes:
        raise JobError(source, f"names {len(classes)} classes and scores {num_classes}", "export it again")
    return OnnxFile(data, source, tuple(classes), height or metadata.get("image_size_px", 0),
                    max(metadata.get("strides", [STRIDE_PX])), not height, suppression)


def _metadata(program: Any) -> Mapping[str, Any]:
    """Our entries, each of which is JSON; those of others are none of our business."""
    found = {}
    for entry in program.metadata_props:
        if entry.key in KEYS:
            try:
                found[entry.key] = json.loads(entry.value)
            except ValueError:
                continue
    return found if "output_columns" in found else {}


def _suppression(metadata: Mapping[str, Any]) -> Suppression | None:
    if "iou_threshold" not in metadata:
        return None
    return Suppression(metadata["confidence_threshold"], metadata["iou_threshold"])


def _shape(value: Any) -> list[int | None]:
    """Sides; None: any."""
    return [axis.dim_value if axis.HasField("dim_value") else None for axis in value.type.tensor_type.shape.dim]


def _words(shapes: list[list[int | None]]) -> str:
    texts = [", ".join("any" if side is None else str(side) for side in shape) for shape in shapes]
    return ", ".join(f"({text})" for text in texts) or "none"
