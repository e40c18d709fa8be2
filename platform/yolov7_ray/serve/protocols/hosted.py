"""Routes by which platforms call a model: SageMaker's containers, Vertex AI's, and KServe's protocol v1.

The image is the body, or base64 in JSON as `{"instances": [{"b64": …}]}` of KServe v1 and Vertex AI; each instance may
hold `b64` itself or under `image` or `image_bytes`. Vertex AI names its routes by AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE.
"""

import asyncio
import base64
import binascii
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from ...detect.options import MAX_DETECTIONS, Options
from ..limits import FORMATS, RequestError, check_header
from ..pages.reference import ANSWER, INSTANCES, SENT, described
from ..schema import DetectResponse
from ..served import MAX_IMAGES, ServedInfo, ServedModel, Settings, detect_all, find_model
from ..uploads import UNNAMED, Uploads


def health_router(models: Mapping[str, ServedModel]) -> APIRouter:
    """`/ping`, and Vertex AI's own, without a token: 200 once a replica of every model answers."""
    api = APIRouter(tags=["Hosted"])

    async def ping(response: Response) -> dict:
        """A replica of every model answers."""
        answers = await asyncio.gather(*(model.is_ready() for model in models.values()))
        response.status_code = 200 if all(answers) else 503
        return {"ready": all(answers)}

    for path in filter(None, ("/ping", os.environ.get("AIP_HEALTH_ROUTE"))):
        api.add_api_route(path, ping, methods=["GET"], name=path, **described(503))
    return api


def router(models: Mapping[str, ServedModel], settings: Settings, uploads: Uploads) -> APIRouter:
    """`/invocations`, `/v1/models/NAME:predict`, `/v1/models/NAME`, and Vertex AI's predict route."""
    api = APIRouter(tags=["Hosted"])

    async def detected(model: ServedModel, images: list[bytes], options: Options) -> list[dict[str, Any]]:
        for image in images:
            await asyncio.to_thread(check_header, image, settings.limits)
        return [DetectResponse.of(found).model_dump() for found in await detect_all(model, images, options)]

    async def instances(model: ServedModel, request: Request) -> dict[str, Any]:
        model.check_room()
        images, options = await asyncio.to_thread(_instances, await uploads.body(request), model.info)
        return {"predictions": await detected(model, images, options)}

    async def invocations(request: Request) -> dict[str, Any]:
        """Detect in an image: its bytes as the body, or instances in JSON. X-Amzn-SageMaker-Target-Model names a
        model."""
        model = find_model(models, request.headers.get("X-Amzn-SageMaker-Target-Model"))
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
            return await instances(model, request)
        model.check_room()
        [answer] = await detected(model, [await uploads.image(request)], model.info.options())
        return answer

    def predict_of(path: str, name_of: Any) -> Callable[..., Awaitable[dict[str, Any]]]:
        async def predict(request: Request, name: name_of) -> dict[str, Any]:
            """Detect in the images of `instances`."""
            return await instances(find_model(models, name), request)

        async def predict_by_default(request: Request) -> dict[str, Any]:
            """Detect in the images of `instances`, by the first model."""
            return await instances(find_model(models, None), request)

        return predict if "{name}" in path else predict_by_default

    told = described(*SENT, 401, 403, 404, body=INSTANCES, answer={"predictions": [ANSWER]},
                     about=f"1 to {MAX_IMAGES} images in base64; parameters: confidence, iou, max_detections")
    either = described(*SENT, 401, 403, 404, body=INSTANCES, answer={"predictions": [ANSWER]},
                       media=dict.fromkeys((*FORMATS, UNNAMED), {"type": "string", "format": "binary"}),
                       about="an image, which is answered as by /v1/detect; or several as JSON")
    name_of = Annotated[str, Path(description="Name of the model", examples=[next(iter(models))])]
    api.add_api_route("/invocations", invocations, methods=["POST"], **either)
    for path in filter(None, ("/v1/models/{name}:predict", os.environ.get("AIP_PREDICT_ROUTE"))):
        api.add_api_route(path, predict_of(path, name_of), methods=["POST"], name=path, **told)

    @api.get("/v1/models/{name}", **described(401, 403, 404, 503))
    async def status(name: name_of, response: Response) -> dict[str, Any]:
        """Whether a model is ready, as KServe v1 asks."""
        ready = await find_model(models, name).is_ready()
        response.status_code = 200 if ready else 503
        return {"name": name, "ready": ready}

    return api


def _instances(body: bytes, info: ServedInfo) -> tuple[list[bytes], Options]:
    """The encoded images and the options of a request; RequestError 400 if it is malformed."""
    try:
        document = json.loads(body)
        given, parameters = document["instances"], document.get("parameters") or {}
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise RequestError(400, "body", "is no JSON object with `instances`",
                           'send {"instances": [{"b64": "…"}]}') from error
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_IMAGES:
        raise RequestError(400, "instances", f"is {'empty' if given == [] else 'no list of a suitable length'}",
                           f"send 1 to {MAX_IMAGES} images")
    return [_image(number, instance) for number, instance in enumerate(given)], _options(parameters, info)


def _options(parameters: Any, info: ServedInfo) -> Options:
    chosen = {"confidence": info.confidence, "iou": info.iou, "max_detections": MAX_DETECTIONS}
    given = parameters if isinstance(parameters, dict) else {}
    for name in chosen.keys() & given.keys():
        value, limit = given[name], MAX_DETECTIONS if name == "max_detections" else 1
        whole = name == "max_detections"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not whole <= value <= limit:
            raise RequestError(400, f"parameters.{name}", f"{str(value)[:20]} does not fit",
                               f"give a {'whole ' if whole else ''}number from {int(whole)} to {limit}")
        chosen[name] = value
    return Options(**chosen)


def _image(number: int, instance: Any) -> bytes:
    """The encoded image of an instance."""
    for key in ("image_bytes", "image"):
        instance = instance.get(key, instance) if isinstance(instance, dict) else instance
    text = instance.get("b64") if isinstance(instance, dict) else instance
    if not isinstance(text, str):
        raise RequestError(400, f"instances.{number}", "holds no base64 text", 'send {"b64": "…"}')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"instances.{number}", f"is no base64 ({error})", 'send {"b64": "…"}') from error
