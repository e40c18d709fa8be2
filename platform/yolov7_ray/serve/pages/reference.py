"""What the description of a route tells beside its code: bodies, errors and examples that work as they stand."""

from collections.abc import Mapping
from typing import Any

from ..schema import ErrorResponse, TextError

PROBLEMS = {
    400: "The request, or an image in it, is malformed", 401: "The bearer token is missing or wrong",
    403: "The token has not the scope that is needed", 404: "There is no such model or version",
    408: "The body comes too slowly", 413: "Too many bytes, pixels or values",
    415: "The type or the compression of the body is not supported", 422: "A parameter does not fit",
    429: "Too many slow uploads from this address", 503: "Too many requests wait, or no replica answers: try again after "
                                                         "Retry-After seconds"}
SENT = (400, 408, 413, 415, 429, 503)
"""What may be wrong with a request that has a body, and the load that it meets."""

PIXEL_PNG = ("iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAI0lEQVQIHW3BAQEAAAABIJ433QFV5CnyFHmKPEWeIk+Rp8gzMpcMCZIl"
             "M+8AAAAASUVORK5CYII=")
"""A grey image of 8 x 8 pixels, in base64."""
FOUND = {"box_xyxy": [22.3, 52.3, 56.3, 86.8], "score": 0.959, "label": 0, "name": "circle"}
ANSWER = {"model": "detector", "version": "1", "width_px": 128, "height_px": 128, "batch_size": 1, "inference_ms": 4.2,
          "stages_ms": {"wait": 0.3, "decode": 0.9, "model": 4.2}, "detections": [FOUND]}
INFERENCE = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [PIXEL_PNG]}]}
INFERRED = {"model_name": "detector", "model_version": "1", "outputs": [
    {"name": "boxes", "datatype": "FP32", "shape": [1, 4], "data": FOUND["box_xyxy"]},
    {"name": "scores", "datatype": "FP32", "shape": [1], "data": [0.959]},
    {"name": "labels", "datatype": "INT64", "shape": [1], "data": [0]},
    {"name": "num_detections", "datatype": "INT64", "shape": [1], "data": [1]}]}
INSTANCES = {"instances": [{"b64": PIXEL_PNG}], "parameters": {"confidence": 0.5}}


def described(*problems: int, answer: Any = None, body: Any = None, media: Mapping[str, Any] | None = None,
              about: str = "", error: type = ErrorResponse, optional: bool = False) -> dict[str, Any]:
    """Arguments of a route: the statuses of its errors, an example of its answer, and its body.

    ``body``: an example as JSON. ``media``: content types beside JSON -> schema.
    """
    responses: dict[int | str, Any] = {status: {"model": error, "description": PROBLEMS[status]} for status in problems}
    if answer is not None:
        responses[200] = {"description": "The answer", "content": {"application/json": {"example": answer}}}
    content = {name: {"schema": schema} for name, schema in (media or {}).items()}
    if body is not None:
        content["application/json"] = {"schema": {"type": "object"}, "example": body}
    extra = {"requestBody": {"required": not optional, "content": content} | ({"description": about} if about else {})}
    return {"responses": responses} | ({"openapi_extra": extra} if content else {})


def described_v2(*problems: int, **more: Any) -> dict[str, Any]:
    """The same under /v2, where an error is one string."""
    return described(*problems, error=TextError, **more)
