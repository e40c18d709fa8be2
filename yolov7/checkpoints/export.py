"""Trained models for other runtimes: ONNX, with or without suppression in the graph, and `torch.export`.

A model is folded first. The batch size is dynamic, and with `dynamic_size` height and width too.

B images · N predictions · C classes · D detections of the whole batch
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..evaluation.postprocess import CLASS_OFFSET_PX
from ..model.detector import YOLO
from ..model.reparameterize import reparameterize

OPSET = 18
MAX_SIZE_PX = 8192


@torch.library.custom_op("yolov7::non_max_suppression", mutates_args=())
def non_max_suppression(
    boxes_xyxy: Tensor, scores: Tensor, max_detections: int, iou_threshold: float, confidence_threshold: float
) -> Tensor:
    """Choose from boxes (B, N, 4) with scores (B, 1, N): (D, 3) int64 image, 0, box, the best of an image first.

    It follows ONNX's operator NonMaxSuppression, which replaces it in an exported graph.
    """
    from torchvision.ops import nms

    chosen = []
    for image, (image_boxes, image_scores) in enumerate(zip(boxes_xyxy, scores[:, 0])):
        above = (image_scores > confidence_threshold).nonzero()[:, 0]
        kept = above[nms(image_boxes[above], image_scores[above], iou_threshold)[:max_detections]]
        chosen.append(torch.stack((torch.full_like(kept, image), torch.zeros_like(kept), kept), dim=1))
    return torch.cat(chosen)


@non_max_suppression.register_fake
def _(boxes_xyxy, scores, max_detections, iou_threshold, confidence_threshold):
    return boxes_xyxy.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int64)


class DetectorWithNms(nn.Module):
    """A folded model and its postprocessing: images (B, 3, H, W) to detections (D, 7).

    A detection is image (its index in the batch), x1, y1, x2, y2 in pixels of the network's input,
    score, class: what `postprocess` gives with `multi_label=False`, with the image in front; in the
    order of images, the best score first. Every box has only its best class.
    """

    def __init__(self, model: YOLO, confidence_threshold: float, iou_threshold: float, max_detections: int) -> None:
        super().__init__()
        for name, value in (("confidence_threshold", confidence_threshold), ("iou_threshold", iou_threshold)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}: {value} is out of range; choose from 0 to 1")
        if max_detections < 1:
            raise ValueError(f"max_detections: {max_detections} leaves nothing; give at least 1")
        self.model = model
        self.confidence_threshold = confidence_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        predictions = self.model(images)
        centres, half_sizes = predictions[..., :2], predictions[..., 2:4] / 2
        boxes_xyxy = torch.cat((centres - half_sizes, centres + half_sizes), dim=-1)
        scores, labels = predictions[..., 5:].max(dim=-1, keepdim=True)  # (B, N, 1) each
        objectness = predictions[..., 4:5]
        scores = objectness if self.model.num_classes == 1 else objectness * scores
        labels = labels.to(scores.dtype)
        offset_px = (boxes_xyxy.max() - boxes_xyxy.min() + 1).clamp(min=CLASS_OFFSET_PX)
        chosen = torch.ops.yolov7.non_max_suppression(
            boxes_xyxy + labels * offset_px,  # classes never overlap
            scores.transpose(1, 2), self.max_detections, self.iou_threshold, self.confidence_threshold,
        )  # fmt: skip
        image, box = chosen[:, 0], chosen[:, 2]
        detections = torch.cat((boxes_xyxy, scores, labels), dim=-1)[image, box]
        return torch.cat((image[:, None].to(detections.dtype), detections), dim=1)


def export_program(model: nn.Module, image_size_px: int, *, dynamic_size: bool = False) -> torch.export.ExportedProgram:
    """Return the folded model (a `YOLO`, or a `DetectorWithNms` of one) as a `torch.export` program.

    Its input is (B, 3, image_size_px, image_size_px) with any B. With `dynamic_size` height and width
    may be any multiples of the largest stride from two of it to MAX_SIZE_PX.
    """
    model = deployable(model)
    images, dynamic_shapes = _example_input(model, image_size_px, dynamic_size)
    return torch.export.export(model, (images,), dynamic_shapes=dynamic_shapes)


def save_program(model: YOLO, path: str | os.PathLike, image_size_px: int, *, nms: bool = False,
                 dynamic_size: bool = False, **settings: Any) -> None:
    """Write what `export_program` returns; with `nms` of a `DetectorWithNms` with these `settings`."""
    folded = deployable(model)
    detector = DetectorWithNms(folded, **settings) if nms else folded
    torch.export.save(export_program(detector, image_size_px, dynamic_size=dynamic_size), path)


def _example_input(model: nn.Module, image_size_px: int, dynamic_size: bool) -> tuple[Tensor, tuple[dict, ...]]:
    """An example input and its dynamic axes."""
    network = model.model if isinstance(model, DetectorWithNms) else model
    stride = network.strides[-1]
    min_size_px = 2 * stride if dynamic_size else stride
    if image_size_px < min_size_px or image_size_px % stride:
        raise ValueError(
            f"image_size_px: {image_size_px} does not fit; give a multiple of {stride}, at least {min_size_px}"
        )
    dynamic_axes = {0: torch.export.Dim("batch", min=1)}
    if dynamic_size:
        dynamic_axes[2] = stride * torch.export.Dim("rows", min=2, max=MAX_SIZE_PX // stride)
        dynamic_axes[3] = stride * torch.export.Dim("columns", min=2, max=MAX_SIZE_PX // stride)
    batch_size = 2  # a single image would fix the batch size at one
    return torch.zeros(batch_size, 3, image_size_px, image_size_px, device=network.anchors_px.device), (dynamic_axes,)


def export_onnx(
    model: YOLO,
    path: str | os.PathLike,
    image_size_px: int,
    classes: Sequence[str] = (),
    *,
    nms: bool = False,
    confidence_threshold: float = 0.25,
    iou_threshold: float = 0.45,
    max_detections: int = 100,
    dynamic_size: bool = False,
) -> None:
    """Write the folded model as one ONNX file (opset 18) with input `images` (B, 3, H, W) float32 in [0, 1].

    Its output is `predictions` (B, N, 5+C), see `YOLO.decode`, or with `nms` `detections` (D, 7), see
    `DetectorWithNms`. The metadata (`metadata_props`) hold architecture, classes, strides, image size
    and the meaning of the output, each as JSON. ImportError says how to install what is missing.
    """
    _require_onnx()
    if classes and len(classes) != model.num_classes:
        raise ValueError(f"{len(classes)} class names for {model.num_classes} classes; give one each")
    settings = {
        "confidence_threshold": confidence_threshold, "iou_threshold": iou_threshold, "max_detections": max_detections
    }  # fmt: skip
    folded = deployable(model)
    detector = DetectorWithNms(folded, **settings) if nms else folded
    images, dynamic_shapes = _example_input(detector, image_size_px, dynamic_size)
    program = torch.onnx.export(
        detector,
        (images,),
        dynamo=True,
        dynamic_shapes=dynamic_shapes,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["detections" if nms else "predictions"],
        custom_translation_table={torch.ops.yolov7.non_max_suppression.default: _onnx_nms},
        verbose=False,
    )
    metadata = _metadata(folded, image_size_px, classes, nms) | (settings if nms else {})
    program.model.metadata_props.update({key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()})
    program.save(os.fspath(path), external_data=False)


def _metadata(model: YOLO, image_size_px: int, classes: Sequence[str], nms: bool) -> dict[str, Any]:
    columns = "image x1 y1 x2 y2 score class" if nms else "cx cy w h objectness, then one probability per class"
    return {
        "architecture": model.architecture.name,
        "classes": list(classes) or [f"class {i}" for i in range(model.num_classes)],
        "strides": model.strides,
        "image_size_px": image_size_px,
        "output_columns": columns,
    }


def deployable(model: nn.Module) -> nn.Module:
    """Return the model folded and in evaluation mode; the same object if already folded."""
    if isinstance(model, DetectorWithNms):
        return model
    return model.eval() if model.is_folded else reparameterize(model)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error.name} is not installed; pip install 'yolov7-ray[export]'") from error


def _onnx_nms(boxes_xyxy, scores, max_detections: int, iou_threshold: float, confidence_threshold: float):
    """Our operator expressed by ONNX's."""
    from onnxscript import opset18 as op

    return op.NonMaxSuppression(
        boxes_xyxy, scores, op.Constant(value_ints=[max_detections]),
        op.Constant(value_floats=[iou_threshold]), op.Constant(value_floats=[confidence_threshold]),
    )  # fmt: skip
