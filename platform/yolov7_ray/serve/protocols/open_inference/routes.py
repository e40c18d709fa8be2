"""The routes of the Open Inference Protocol v2, with its extensions for statistics, configuration and repository.

A request holds one tensor `image` (images.py), of one or several images, as JSON or raw behind the JSON (the binary
tensor data extension). Outputs are `boxes`, `scores` and `labels` of all images one after another, and
`num_detections` of each (outputs.py). Request parameters: confidence, iou, max_detections. Bodies may be compressed.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request, Response

from ...limits import RequestError
from ...pages.reference import INFERENCE, INFERRED, SENT, described_v2
from ...served import Detected, ServedModel, Settings, detect_all, find_model
from ...uploads import Uploads
from .description import model_config, model_metadata, server_metadata
from .images import images_of
from .messages import JSON_LENGTH_HEADER, InferRequest, OutputTensor, parsed
from .outputs import OUTPUTS, output_tensors
from .statistics import Statistics

TAG = "Open Inference Protocol v2"
BINARY = {"type": "string", "format": "binary"}
ABOUT = ("an inference request; its tensor `image` is BYTES (encoded images, base64 in JSON), UINT8 or FP16 and FP32 in "
         "[0, 1], of shape [H, W, 3], [3, H, W], or either with the number of images before it; raw behind the JSON by "
         "the binary tensor data extension; gzip and deflate are understood")
COMPRESSIONS = {"gzip": lambda data: gzip.compress(data, 3, mtime=0), "deflate": lambda data: zlib.compress(data, 3)}


def health_router(models: Mapping[str, ServedModel]) -> APIRouter:
    """Liveness and readiness, without a token."""
    api = APIRouter(tags=[TAG])

    @api.get("/v2/health/live")
    async def live() -> dict:
        """The gateway lives."""
        return {"live": True}

    @api.get("/v2/health/ready", **described_v2(503))
    async def ready(response: Response) -> dict:
        """A replica of every model answers."""
        answers = await asyncio.gather(*(model.is_ready() for model in models.values()))
        response.status_code = 200 if all(answers) else 503
        return {"ready": all(answers)}

    return api


def router(models: Mapping[str, ServedModel], settings: Settings, uploads: Uploads, statistics: Statistics) -> APIRouter:
    """Metadata, statistics, the repository's index, and inference; with and without /versions/{version} in the path."""
    api = APIRouter(tags=[TAG])
    name_of = _name_of(models)
    told = described_v2(401, 403, 404)

    @api.get("/v2", **described_v2(401, 403))
    async def server() -> dict:
        """Metadata of the server."""
        return server_metadata()

    @api.get("/v2/models/stats", **described_v2(401, 403))
    async def all_statistics() -> dict:
        """Statistics of all models, as this gateway counts them."""
        return {"model_stats": [statistics.of(model.info) for model in models.values()]}

    @api.get("/v2/models/{name}", **told)
    @api.get("/v2/models/{name}/versions/{version}", include_in_schema=False)
    async def metadata(name: name_of, version: str | None = None) -> dict:
        """A model's tensors and classes."""
        return model_metadata(find_model(models, name, version).info)

    @api.get("/v2/models/{name}/config", **told)
    @api.get("/v2/models/{name}/versions/{version}/config", include_in_schema=False)
    async def config(name: name_of, version: str | None = None) -> dict:
        """A model's configuration, as Triton tells it."""
        return model_config(find_model(models, name, version).info)

    @api.get("/v2/models/{name}/stats", **told)
    @api.get("/v2/models/{name}/versions/{version}/stats", include_in_schema=False)
    async def model_statistics(name: name_of, version: str | None = None) -> dict:
        """A model's statistics, as this gateway counts them: each image is a request."""
        return {"model_stats": [statistics.of(find_model(models, name, version).info)]}

    @api.get("/v2/models/{name}/ready", **described_v2(401, 403, 404, 503))
    @api.get("/v2/models/{name}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(response: Response, name: name_of, version: str | None = None) -> dict:
        """Whether a replica of a model answers."""
        ready = await find_model(models, name, version).is_ready()
        response.status_code = 200 if ready else 503
        return {"name": name, "ready": ready}

    @api.post("/v2/repository/index", **described_v2(*SENT, 401, 403, body={"ready": True}, optional=True, answer=[
        {"name": "detector", "version": "1", "state": "READY", "reason": ""}]))
    async def repository_index(request: Request) -> list[dict]:
        """The models of this endpoint; `{"ready": true}` leaves out those that are not."""
        only_ready = _only_ready(await uploads.body(request, may_be_empty=True))
        ready = await asyncio.gather(*(model.is_ready() for model in models.values()))
        return [{"name": model.info.name, "version": model.info.version, "state": "READY" if is_ready else "UNAVAILABLE",
                 "reason": "" if is_ready else "no replica answers"}
                for model, is_ready in zip(models.values(), ready) if is_ready or not only_ready]

    @api.post("/v2/models/{name}/infer", **described_v2(
        *SENT, 401, 403, 404, body=INFERENCE, answer=INFERRED, media={"application/octet-stream": BINARY}, about=ABOUT))
    @api.post("/v2/models/{name}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, name: name_of, version: str | None = None) -> Response:
        """Detect in one or several images."""
        model = find_model(models, name, version)
        model.check_room()
        body = await uploads.body(request)
        length = request.headers.get(JSON_LENGTH_HEADER)

        def read() -> tuple[InferRequest, list[bytes] | list[np.ndarray]]:
            inference, data = parsed(body, length)
            tensor = inference.inputs[0]
            return inference, images_of(tensor.shape, tensor.datatype, data, settings.limits, tensor.parameters.layout)

        inference, images = await asyncio.to_thread(read)  # parsing megabytes of JSON takes time
        wanted = inference.parameters
        options = model.info.options(wanted.confidence, wanted.iou, wanted.max_detections)
        found = await detect_all(model, images, options)
        return _response(inference, found, _compression(request.headers.get("accept-encoding", "")))

    return api


def control_router(models: Mapping[str, ServedModel]) -> APIRouter:
    """Loading and unloading, for those who may: what is served is the serve job's, and the answer says so."""
    api = APIRouter(tags=[TAG])
    name_of, told = _name_of(models), described_v2(400, 401, 403, 404)

    @api.post("/v2/repository/models/{name}/load", **told)
    @api.post("/v2/repository/models/{name}/unload", **told)
    async def refuse(request: Request, name: name_of) -> None:
        """Refused: the serve job says what is served."""
        model, verb = find_model(models, name), request.url.path.rpartition("/")[2]
        raise RequestError(400, f"model '{model.info.name}'", f"is served by a job, so no request can {verb} it",
                           "submit the serve job with other models; `follow: true` goes on with a moved alias")

    return api


def _name_of(models: Mapping[str, ServedModel]) -> Any:
    return Annotated[str, Path(description="Name of the model", examples=[next(iter(models))])]


def _only_ready(body: bytes) -> bool:
    try:
        asked = json.loads(body or b"{}")
        return bool(asked.get("ready", False))
    except (ValueError, AttributeError, RecursionError) as error:
        raise RequestError(400, "body", "is no JSON object", 'send {"ready": true}, or nothing') from error


def _response(inference: InferRequest, found: Sequence[Detected], compression: str | None) -> Response:
    """The requested outputs, each as JSON or raw behind the JSON."""
    tensors = output_tensors(found)
    outputs, raw = [], []
    for tensor in inference.outputs or [OutputTensor(name=name) for name in OUTPUTS]:
        datatype, values = OUTPUTS[tensor.name][0], tensors[tensor.name]
        output: dict[str, Any] = {"name": tensor.name, "datatype": datatype, "shape": list(values.shape)}
        asked = tensor.parameters.binary_data
        if inference.parameters.binary_data_output if asked is None else asked:
            raw.append(values.tobytes())
            output["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    info = found[0].info
    answer = {"model_name": info.name, "model_version": info.version, "outputs": outputs}
    text = json.dumps(answer if inference.id is None else answer | {"id": inference.id}).encode()
    headers = {JSON_LENGTH_HEADER: str(len(text))} if raw else {}
    body = b"".join([text, *raw])
    if compression is not None:
        headers["Content-Encoding"], body = compression, COMPRESSIONS[compression](body)
    return Response(body, media_type="application/octet-stream" if raw else "application/json", headers=headers)


def _compression(accepted: str) -> str | None:
    """gzip or deflate, where the client asks for it by name."""
    wanted = [part.replace(" ", "").lower().partition(";") for part in accepted.split(",")]
    return next((name for name, _, weight in wanted if name in COMPRESSIONS and weight not in ("q=0", "q=0.0")), None)
