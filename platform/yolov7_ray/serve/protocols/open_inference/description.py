"""What a client may ask of a model: metadata, and configuration as Triton tells it."""

from typing import Any

from ...served import ServedInfo
from .images import PIXEL_FORMAT
from .outputs import OUTPUTS

NAME, PLATFORM = "yolov7_ray", "pytorch_yolov7"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics", "model_repository")
INPUT_SHAPE = [-1, -1, -1, 3]
"""Images, height, width, channels; the first may be left out, and channels may come before height."""


def server_metadata() -> dict[str, Any]:
    """Of the server."""
    return {"name": NAME, "version": "2", "extensions": list(EXTENSIONS)}


def model_metadata(info: ServedInfo) -> dict[str, Any]:
    """Of a model: its tensors and classes."""
    return {
        "name": info.name, "versions": [info.version], "platform": PLATFORM,
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": INPUT_SHAPE, "parameters": PIXEL_FORMAT}],
        "outputs": [{"name": output, "datatype": datatype, "shape": shape}
                    for output, (datatype, shape) in OUTPUTS.items()],
        "parameters": {"classes": list(info.classes), "architecture": info.architecture},
    }


def model_config(info: ServedInfo) -> dict[str, Any]:
    """Triton's ModelConfig; batches are dimensions of the tensors themselves, hence max_batch_size 0."""
    parameters = {"architecture": info.architecture, "engine": info.engine, "image_size_px": str(info.image_size_px),
                  "confidence_threshold": str(info.confidence), "iou_threshold": str(info.iou), "ref": info.ref}
    return {
        "name": info.name, "platform": PLATFORM, "backend": NAME,
        "version_policy": {"specific": {"versions": [int(info.version)] if info.version.isdigit() else []}},
        "max_batch_size": 0,
        "input": [{"name": "image", "data_type": "TYPE_UINT8", "format": "FORMAT_NONE", "dims": INPUT_SHAPE}],
        "output": [{"name": name, "data_type": f"TYPE_{datatype}", "dims": shape}
                   for name, (datatype, shape) in OUTPUTS.items()],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }
