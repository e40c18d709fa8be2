"""The JSON of an inference request, and how the binary tensor data extension takes it apart."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ....detect.options import MAX_DETECTIONS
from ...limits import RequestError, whole_number
from .outputs import OUTPUTS

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"

MAX_JSON_VALUES = 1_500_000
"""Values that the JSON of a request may hold: pixels of 700 x 700, and at most half a second of parsing."""


class TensorParameters(BaseModel):
    """Parameters of an input; others are ignored."""

    binary_data_size: int | None = None
    layout: Literal["HWC", "CHW"] | None = None


class Tensor(BaseModel):
    """An input tensor."""

    name: Annotated[str, Field(max_length=100)]
    shape: Annotated[list[int], Field(max_length=8)] = []
    datatype: str = ""
    parameters: TensorParameters = TensorParameters()
    data: list[Any] | None = None


class OutputParameters(BaseModel):
    """Parameters of an output; others are ignored."""

    binary_data: bool | None = None


class OutputTensor(BaseModel):
    """A requested output tensor."""

    name: Annotated[str, Field(max_length=100)]
    parameters: OutputParameters = OutputParameters()


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


def parsed(body: bytes, json_length: str | None) -> tuple[InferRequest, bytes | list | None]:
    """The request and the data of its one tensor, raw or as JSON; RequestError 400 or 413 if it is malformed."""
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
        raise malformed(error) from error
    check_names([tensor.name for tensor in inference.inputs], [tensor.name for tensor in inference.outputs or ()])
    tensor, raw = inference.inputs[0], body[split:]
    declared = tensor.parameters.binary_data_size
    if declared not in (None, len(raw)):
        raise RequestError(400, "image", f"says {declared} bytes of data, {len(raw)} arrived",
                           "let binary_data_size be the length of what follows the JSON")
    return inference, tensor.data if declared is None else raw


def malformed(error: ValidationError) -> RequestError:
    """The error for a request whose fields do not fit."""
    first = error.errors()[0]
    return RequestError(400, ".".join(str(part) for part in first["loc"]) or "body", first["msg"],
                        "send an inference request of the Open Inference Protocol")


def check_names(inputs: list[str], outputs: list[str]) -> None:
    """RequestError 400 unless there is one input, `image`, and every requested output exists and is requested once."""
    if inputs != ["image"]:
        raise RequestError(400, "inputs", f"are {inputs}", "send one tensor named 'image'")
    for number, name in enumerate(outputs):
        if name not in OUTPUTS:
            raise RequestError(400, "outputs", f"'{name}' is unknown", f"choose from {', '.join(OUTPUTS)}")
        if name in outputs[:number]:
            raise RequestError(400, "outputs", f"'{name}' is requested twice", "request each output once")
