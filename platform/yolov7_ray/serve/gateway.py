"""The gateway: the deployment that serves HTTP and passes images to the replicas of the requested model."""

import asyncio

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from .limits import RequestError
from .routes import build_api
from .served import Detected, Options, ServedInfo, Settings

RETRY_AFTER_S = 1
READY_TIMEOUT_S = 5.0


class RemoteModel:
    """Client of a served model's replicas, for the routes."""

    def __init__(self, info: ServedInfo, handle: DeploymentHandle):
        self.info = info
        self._handle = handle

    async def detect(self, image: bytes | np.ndarray, options: Options, draw: bool = False) -> Detected:
        """Detect in one image; see DetectorReplica.detect. RequestError 503 if the model is busy or down."""
        try:
            return await self._call(image, options, draw)
        except RayActorError:  # the replica died: detection has no side effects, so retry on another
            try:
                return await self._call(image, options, draw)
            except RayActorError as error:
                raise self._unavailable("lost its replica") from error

    async def is_ready(self) -> bool:
        """Whether a replica answers, which it does once it has completed a real inference."""
        try:
            return await asyncio.wait_for(self._handle.is_ready.remote(), READY_TIMEOUT_S)
        except (TimeoutError, RayActorError, BackPressureError, DeploymentUnavailableError):
            return False

    async def _call(self, *arguments) -> Detected:
        try:
            return await self._handle.detect.remote(*arguments)
        except BackPressureError as error:
            raise self._unavailable("has too many requests waiting") from error
        except DeploymentUnavailableError as error:
            raise self._unavailable("is not available") from error
        except RayTaskError as error:
            if isinstance(error.cause, RequestError):
                raise error.cause from error
            raise

    def _unavailable(self, problem: str) -> RequestError:
        return RequestError(503, f"model '{self.info.name}'", problem, f"try again in {RETRY_AFTER_S} s",
                            retry_after_s=RETRY_AFTER_S)


@serve.deployment
@serve.ingress()
class Gateway:
    """Serves the routes with the replicas' handles, which arrive in the order of `infos`."""

    def __init__(self, infos: list[ServedInfo], settings: Settings, *handles: DeploymentHandle):
        self._models = {info.name: RemoteModel(info, handle) for info, handle in zip(infos, handles, strict=True)}
        self._settings = settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._models, self._settings)
