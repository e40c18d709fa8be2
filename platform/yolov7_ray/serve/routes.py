"""The routes of the endpoint. Plain FastAPI, independent of where the models run."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from ..detect.options import MAX_DETECTIONS
from .access.log import Traced, request_id
from .access.spec import Scope
from .access.tokens import Tokens
from .capture.recorder import Recorder
from .limits import FORMATS, RequestError, check_header
from .monitoring.drift import Drift
from .monitoring.metrics import Metrics
from .monitoring.observed import Observed
from .pages.reference import ANSWER, SENT, described
from .pages.routes import router as pages
from .protocols import hosted, open_inference
from .protocols.open_inference.grpc_service import GrpcService
from .schema import DetectResponse, Health, ModelDescription, ModelList
from .served import ServedModel, Settings, find_model
from .uploads import UNNAMED, Uploads

BEARER = HTTPBearer(auto_error=False)


def build_api(models: Mapping[str, ServedModel], settings: Settings, gateway: str = "0") -> FastAPI:
    """The application over `models` (name -> model, the first is the default); `gateway` names it in its metrics."""
    metrics, statistics, drift = Metrics(gateway), open_inference.Statistics(), Drift(gateway)
    metrics.registry.register(drift)
    recorders = [Recorder(settings.capture, metrics.captured)] if settings.capture else []
    metrics.serving(models)
    models = {name: Observed(model, (metrics, statistics, drift, *recorders)) for name, model in models.items()}

    @contextlib.asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        no_longer_watch = settings.tokens.watch()
        yield
        no_longer_watch()
        for recorder in recorders:
            await asyncio.to_thread(recorder.close)

    api = FastAPI(title="YOLOv7 object detection", version="1", docs_url=None, redoc_url=None, lifespan=running,
                  description="Send an image, get the objects in it.")
    authorized, uploads = _needs(settings.tokens, "detect"), Uploads(settings.limits)
    _add_errors(api)
    api.include_router(pages())
    _add_detection(api, models, settings, uploads, authorized)
    _add_health(api, models)
    for protocol in (open_inference, hosted):
        api.include_router(protocol.health_router(models))
    api.include_router(open_inference.router(models, settings, uploads, statistics), dependencies=authorized)
    api.include_router(open_inference.control_router(models), dependencies=_needs(settings.tokens, "admin"))
    api.include_router(hosted.router(models, settings, uploads), dependencies=authorized)
    metrics.add_to(api, _needs(settings.tokens, "metrics"))
    api.state.grpc_service = GrpcService(models, settings)
    api.add_middleware(Traced, access_log=settings.access_log)
    return api


def _needs(tokens: Tokens, scope: Scope) -> list:
    """Dependencies of routes that ask for a token of that scope."""
    async def check(request: Request,
                    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        request.state.token = tokens.check(credentials and credentials.credentials, scope)

    return [Depends(check)] if tokens.are_required else []


def _add_detection(api: FastAPI, models: Mapping[str, ServedModel], settings: Settings, uploads: Uploads,
                   authorized: list) -> None:
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {"file": binary["schema"]}}
    told = described(*SENT, 401, 403, 404, 422, answer=ANSWER, about="an image, or a form with one as a file; gzip and "
                     "deflate are understood", media=dict.fromkeys((*FORMATS, UNNAMED), binary["schema"])
                     | {"multipart/form-data": form})
    told["responses"][200]["content"]["image/png"] = binary

    @api.post("/v1/detect", dependencies=authorized, response_model=DetectResponse, **told)
    async def detect(
        request: Request,
        model: Annotated[str | None, Query(description="Name of the model; default: the first")] = None,
        confidence: Annotated[float | None, Query(
            ge=0, le=1, description="Leave out lower scores; default: the model's")] = None,
        iou: Annotated[float | None, Query(
            ge=0, le=1, description="Overlap at which the weaker of two is left out; default: the model's")] = None,
        max_detections: Annotated[int, Query(ge=1, le=MAX_DETECTIONS)] = MAX_DETECTIONS,
        format: Annotated[Literal["json", "image"], Query(description="image: the drawn image as PNG")] = "json",
    ):
        """Detect the objects in a JPEG, PNG or WebP image."""
        served = find_model(models, model)
        served.check_room()
        image = await uploads.image(request)
        await asyncio.to_thread(check_header, image, settings.limits)
        options = served.info.options(confidence, iou, max_detections)
        found = await served.detect(image, options, draw=format == "image")
        if format == "image":
            return Response(found.drawn_png, media_type="image/png")
        return DetectResponse.of(found)

    @api.get("/v1/models", dependencies=authorized, **described(401, 403))
    async def list_models() -> ModelList:
        """The models, with their classes."""
        newer = await asyncio.gather(*(model.newer() for model in models.values()))
        return ModelList(models=[
            ModelDescription(name=info.name, version=info.version, ref=info.ref, architecture=info.architecture,
                             image_size_px=info.image_size_px, classes=list(info.classes), engine=info.engine,
                             newer=newer[number], default=number == 0)
            for number, info in enumerate(model.info for model in models.values())
        ])


def _add_health(api: FastAPI, models: Mapping[str, ServedModel]) -> None:
    @api.get("/healthz")
    async def live() -> Health:
        """The gateway lives."""
        return Health(status="live")

    @api.get("/readyz", responses={503: {"model": Health}})
    async def ready(response: Response) -> Health:
        """Ready: a replica of every model has made a real inference and answers."""
        answers = await asyncio.gather(*(model.is_ready() for model in models.values()))
        if not all(answers):
            response.status_code = 503
        return Health(status="ready" if all(answers) else "not ready", models=dict(zip(models, answers)))


def _add_errors(api: FastAPI) -> None:
    @api.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> JSONResponse:
        headers = {"Retry-After": str(math.ceil(error.retry_after_s))} if error.retry_after_s is not None else {}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return error_response(request, error, headers)

    @api.exception_handler(RequestValidationError)
    async def invalid_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"{first.get('input')!r} does not fit: {first['msg']}"
        return error_response(request, RequestError(422, where, problem, "see /docs"))

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        where = f"{request.method} {request.url.path}"
        refusal = RequestError(error.status_code, where, str(error.detail), "see /docs")
        return error_response(request, refusal, error.headers)

    @api.exception_handler(Exception)
    async def internal_error(request: Request, error: Exception) -> JSONResponse:
        where = f"{request.method} {request.url.path}"
        return error_response(request, RequestError(500, where, "the server failed on this request",
                                                    "try again; the server's log holds the cause"))


def error_response(request: Request, error: RequestError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error as JSON; under /v2 as one string, as that protocol defines."""
    detail = {"where": error.where, "problem": error.problem, "remedy": error.remedy, "request_id": request_id(request)}
    content = {"error": str(error) if request.url.path.startswith("/v2") else detail}
    return JSONResponse(content, status_code=error.status, headers=dict(headers or {}))
