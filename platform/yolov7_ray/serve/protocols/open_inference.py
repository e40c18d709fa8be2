"""The Open Inference Protocol v2, so that its clients (Triton's, KServe's) work unchanged.

One image per request: a tensor `image`, either BYTES with one encoded image (base64 in JSON, as it is in the
binary extension) or pixels [H, W, 3] or [1, H, W, 3], UINT8, or FP32 in [0, 1], RGB. Outputs are `boxes`
[n, 4] (x1, y1, x2, y2 in pixels), `scores` [n] and `labels` [n]. Request parameters: confidence, iou,
max_detections. Tensors may also travel raw behind the JSON (the binary tensor data extension).
"""

import asyncio
import base64
import binascii
import json
import struct
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...detect.options import MAX_DETECTIONS
from ..limits import Limits, RequestError, check_header, check_pixels, whole_number
from ..served import Detected, ServedInfo, ServedModel, Settings, find_model
from ..uploads import Uploads

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
DTYPES = {"UINT8": np.dtype("<u1"), "FP32": np.dtype("<f4")}
OUTPUTS = {"boxes": ("FP32", [-1, 4]), "scores": ("FP32", [-1]), "labels": ("INT64", [-1])}
PIXEL_FORMAT = {"datatypes": [*DTYPES, "BYTES"], "layout": "HWC", "color": "RGB",
                "range": {"UINT8": [0, 255], "FP32": [0, 1]}}
"""What an input may be, for clients that read the metadata; BYTES is one encoded image."""

MAX_JSON_VALUES = 1_500_000
"""Values that the JSON of a request may hold: pixels of 700 x 700, and at most half a second of parsing."""

ROUNDING = 1e-3
"""How far FP32 pixels may lie outside [0, 1]."""


class Tensor(BaseModel):
    """An input tensor."""

    name: Annotated[str, Field(max_length=100)]
    shape: Annotated[list[int], Field(max_length=8)] = []
    datatype: str = ""
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class OutputTensor(BaseModel):
    """A requested output tensor."""

    name: Annotated[str, Field(max_length=100)]
    parameters: dict[str, Any] = {}


class InferParameters(BaseModel):
    """Parameters that a client may set for a request; others are ignored."""

    confidence: float | None = Field(None, ge=0, le=1)
    iou: float | None = Field(None, ge=0, le=1)
    max_detections: int = Field(MAX_DETECTIONS, ge=1, le=MAX_DETECTIONS)
    binary_data_output: bool = False


class InferRequest(BaseModel):
    """The JSON of an inference request."""

    model_config = ConfigDict(protected_namespaces=())

    id: str | None = None
    parameters: InferParameters = InferParameters()
    inputs: Annotated[list[Tensor], Field(max_length=8)]
    outputs: Annotated[list[OutputTensor], Field(max_length=8)] | None = None


def health_router(models: Mapping[str, ServedModel]) -> APIRouter:
    """Liveness and readiness, without a token."""
    api = APIRouter(tags=["Open Inference Protocol v2"])

    @api.get("/v2/health/live")
    async def live() -> dict:
        return {"live": True}

    @api.get("/v2/health/ready")
    async def ready(response: Response) -> dict:
        answers = await asyncio.gather(*(model.is_ready() for model in models.values()))
        response.status_code = 200 if all(answers) else 503
        return {"ready": all(answers)}

    return api


def router(models: Mapping[str, ServedModel], settings: Settings, uploads: Uploads) -> APIRouter:
    """Metadata and inference, with and without /versions/{version} in the path."""
    api = APIRouter(tags=["Open Inference Protocol v2"])

    @api.get("/v2")
    async def server() -> dict:
        return {"name": "yolov7_ray", "version": "2", "extensions": ["binary_tensor_data"]}

    @api.get("/v2/models/{name}")
    @api.get("/v2/models/{name}/versions/{version}", include_in_schema=False)
    async def model_metadata(name: str, version: str | None = None) -> dict:
        return _metadata(_find(models, name, version).info)

    @api.get("/v2/models/{name}/ready")
    @api.get("/v2/models/{name}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(response: Response, name: str, version: str | None = None) -> dict:
        ready = await _find(models, name, version).is_ready()
        response.status_code = 200 if ready else 503
        return {"name": name, "ready": ready}

    @api.post("/v2/models/{name}/infer")
    @api.post("/v2/models/{name}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        model = _find(models, name, version)
        model.check_room()
        body = await uploads.body(request)
        length = request.headers.get(JSON_LENGTH_HEADER)
        # in a thread: parsing megabytes of JSON takes time
        inference, image = await asyncio.to_thread(_parse, body, length, settings.limits)
        wanted = inference.parameters
        options = model.info.options(wanted.confidence, wanted.iou, wanted.max_detections)
        return _response(inference, await model.detect(image, options))

    return api


def _find(models: Mapping[str, ServedModel], name: str, version: str | None) -> ServedModel:
    model = find_model(models, name)
    if version not in (None, model.info.version):
        raise RequestError(404, f"model '{name}'", f"version '{version}' is not served",
                           f"served is version {model.info.version}")
    return model


def _metadata(info: ServedInfo) -> dict[str, Any]:
    return {
        "name": info.name, "versions": [info.version], "platform": "pytorch_yolov7",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, 3],
                    "parameters": PIXEL_FORMAT}],
        "outputs": [{"name": output, "datatype": datatype, "shape": shape}
                    for output, (datatype, shape) in OUTPUTS.items()],
        "parameters": {"classes": list(info.classes), "architecture": info.architecture},
    }


def _parse(body: bytes, json_length: str | None, limits: Limits) -> tuple[InferRequest, bytes | np.ndarray]:
    """The request and its image, encoded or as pixels (H, W, 3) uint8; RequestError 400 if it is malformed."""
    split = len(body) if json_length is None else whole_number(json_length, len(body))
    if split is None or split > len(body):
        raise RequestError(400, JSON_LENGTH_HEADER, f"'{json_length[:20]}' does not fit a body of {len(body)} bytes",
                           "give the length of the JSON part in bytes")
    if body.count(b",", 0, split) >= MAX_JSON_VALUES:
        raise RequestError(413, "body", f"holds more than {MAX_JSON_VALUES} values as JSON",
                           "send the tensor by the binary tensor data extension, or the encoded image as BYTES")
    try:
        inference = InferRequest.model_validate_json(body[:split])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise RequestError(400, where, first["msg"],
                           "send an inference request of the Open Inference Protocol") from error
    if (names := [tensor.name for tensor in inference.inputs]) != ["image"]:
        raise RequestError(400, "inputs", f"are {names}", "send one tensor named 'image'")
    _check_outputs(inference)
    tensor, raw = inference.inputs[0], body[split:]
    declared = tensor.parameters.get("binary_data_size")
    if declared not in (None, len(raw)):
        raise RequestError(400, "image", f"says {declared} bytes of data, {len(raw)} arrived",
                           "let binary_data_size be the length of what follows the JSON")
    data = tensor.data if declared is None else raw
    if tensor.datatype != "BYTES":
        return inference, _pixels(tensor, data, limits)
    image = _encoded(tensor, data)
    check_header(image, limits)
    return inference, image


def _check_outputs(inference: InferRequest) -> None:
    """RequestError 400 unless every requested output exists and is requested once: an answer holds each once."""
    names = [tensor.name for tensor in inference.outputs or ()]
    for number, name in enumerate(names):
        if name not in OUTPUTS:
            raise RequestError(400, "outputs", f"'{name}' is unknown", f"choose from {', '.join(OUTPUTS)}")
        if name in names[:number]:
            raise RequestError(400, "outputs", f"'{name}' is requested twice", "request each output once")


def _encoded(tensor: Tensor, data: bytes | list | None) -> bytes:
    """The one encoded image of a BYTES tensor."""
    if isinstance(data, bytes):
        if len(data) < 4 or struct.unpack("<I", data[:4])[0] != len(data) - 4:
            raise RequestError(400, "image", "is no single BYTES element", "send 4 bytes of length, then one image")
        return data[4:]
    if not isinstance(data, list) or len(data) != 1 or not isinstance(data[0], str):
        raise RequestError(400, "image", "data is not one string", "send one image as base64, shape [1]")
    try:
        return base64.b64decode(data[0], validate=True)
    except binascii.Error as error:
        raise RequestError(400, "image", f"is no base64 ({error})", "send one image as base64, shape [1]") from error


def _pixels(tensor: Tensor, data: bytes | list | None, limits: Limits) -> np.ndarray:
    """A pixel tensor as (H, W, 3) uint8."""
    if tensor.datatype not in DTYPES:
        raise RequestError(400, "image", f"datatype '{tensor.datatype}' is not supported", "send BYTES, UINT8 or FP32")
    shape = tensor.shape[1:] if len(tensor.shape) == 4 and tensor.shape[0] == 1 else tensor.shape
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
        raise RequestError(400, "image", f"shape {tensor.shape} does not fit", "send [H, W, 3] or [1, H, W, 3]")
    check_pixels(shape[1], shape[0], limits)
    dtype = DTYPES[tensor.datatype]
    try:
        flat = np.frombuffer(data, dtype) if isinstance(data, bytes) else _of_json(data, dtype)
        pixels = flat.reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(400, "image", f"data does not fit {tensor.datatype} {tensor.shape} ({error})",
                           "send as many values as the shape has") from error
    if tensor.datatype == "UINT8":
        return pixels
    if not np.isfinite(pixels).all():
        raise RequestError(400, "image", "holds values that are not finite", "send FP32 in [0, 1]")
    if pixels.min() < -ROUNDING or pixels.max() > 1 + ROUNDING:
        raise RequestError(400, "image", f"FP32 values reach from {pixels.min():g} to {pixels.max():g}",
                           "divide pixels of 0 to 255 by 255: FP32 is RGB in [0, 1]; or send them as UINT8")
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def _of_json(data: list | None, dtype: np.dtype) -> np.ndarray:
    """JSON numbers as an array; ValueError where UINT8 is not whole or not in [0, 255], which NumPy would cut off."""
    values = np.asarray(data, np.float64)
    if dtype.kind == "u" and not ((values >= 0) & (values <= 255) & (values == values.round())).all():
        raise ValueError("values are not all whole numbers from 0 to 255")
    return values.astype(dtype)


def _response(inference: InferRequest, found: Detected) -> Response:
    """The requested outputs, each as JSON or raw behind the JSON."""
    rows = np.ascontiguousarray(found.detections, np.float32)
    tensors = {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5].astype("<i8")}
    outputs, raw = [], []
    for tensor in inference.outputs or [OutputTensor(name=name) for name in OUTPUTS]:
        datatype, values = OUTPUTS[tensor.name][0], tensors[tensor.name]
        output: dict[str, Any] = {"name": tensor.name, "datatype": datatype, "shape": list(values.shape)}
        if tensor.parameters.get("binary_data", inference.parameters.binary_data_output):
            raw.append(values.tobytes())
            output["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    answer = {"model_name": found.info.name, "model_version": found.info.version, "outputs": outputs}
    text = json.dumps(answer if inference.id is None else answer | {"id": inference.id}).encode()
    if not raw:
        return Response(text, media_type="application/json")
    return Response(b"".join([text, *raw]), media_type="application/octet-stream",
                    headers={JSON_LENGTH_HEADER: str(len(text))})
