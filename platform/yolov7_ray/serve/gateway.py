"""The gateway: the deployment that serves HTTP and passes images to the replicas of the requested model."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.middleware import Middleware

from ..detect.options import Options
from ..errors import JobError
from ..registry.registry import REF, Registry
from .limits import RequestError
from .protocols.open_inference.grpc_service import GrpcCalls
from .rollout.canary import Canary, Reporter
from .rollout.split import Remembered, Split
from .routes import build_api
from .served import Detected, ServedInfo, Settings

RETRY_AFTER_S = 1
READY_TIMEOUT_S = 5.0
LOOK_AGAIN_S = 10.0
"""How often the registry is asked, at most, where an alias points."""

ANSWER_TIMEOUT_S = 100.0
"""Less than the timeout of Ray Serve's proxy, whose answer would be plain text."""


MAX_GRPC_BYTES = 3 << 20
"""Larger images go through Ray's object store, at 8 ms of CPU more; a message by gRPC is at most 4 MiB."""


class RemoteModel:
    """Client of a served model's replicas, for the routes; at most `max_in_flight` requests at a time.

    What is above is refused here, at once. The replicas accept whatever gateways admit and let it wait: a full
    replica would make Ray Serve's router back off, by up to half a second while the replica idles.
    """

    def __init__(self, info: ServedInfo, handle: DeploymentHandle, max_in_flight: int):
        self.info = info
        self._handle, self._handle_by_grpc = handle, handle.options(_by_reference=False)
        self._max_in_flight, self._in_flight = max_in_flight, 0
        self._current, self._look_again_at = info.ref, 0.0

    def check_room(self) -> None:
        """RequestError 503 if the model is busy: asked before a body is read, as the copy would be in vain."""
        if self._in_flight >= self._max_in_flight:
            raise self._unavailable("has too many requests waiting")

    async def detect(self, image: bytes | np.ndarray, options: Options, draw: bool = False) -> Detected:
        """Detect in one image; see DetectorReplica.detect. RequestError 503 if the model is busy or down."""
        self.check_room()
        self._in_flight += 1
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                found = await self._retried(image, options, draw)
                self.info = found.info
                return found
        except TimeoutError as error:
            raise self._unavailable(f"has not answered within {ANSWER_TIMEOUT_S:g} s") from error
        finally:
            self._in_flight -= 1

    async def is_ready(self) -> bool:
        """Whether a replica answers, which it does once it has completed a real inference."""
        try:
            self.info = await asyncio.wait_for(self._handle.current.remote(), READY_TIMEOUT_S)
            return True
        except (TimeoutError, RayActorError, BackPressureError, DeploymentUnavailableError):
            return False

    async def newer(self) -> str | None:
        """The version that the model's name or alias refers to now, if it is another one; asked for now and then."""
        now = time.monotonic()
        if now >= self._look_again_at:
            self._look_again_at = now + LOOK_AGAIN_S
            await self.is_ready()  # by now the replicas may have followed it
            try:
                self._current = await asyncio.wait_for(asyncio.to_thread(self._resolve), READY_TIMEOUT_S)
            except (JobError, OSError, TimeoutError):
                self._current = self.info.ref  # unknown: the endpoint serves what it has
        return None if self._current == self.info.ref else self._current

    def _resolve(self) -> str:
        if self.info.registry is None or not REF.fullmatch(self.info.asked):
            return self.info.ref
        return Registry(self.info.registry).resolve(self.info.asked).ref

    async def _retried(self, *arguments) -> Detected:
        try:
            return await self._call(*arguments)
        except RayActorError:  # the replica died: detection has no side effects, so retry on another
            try:
                return await self._call(*arguments)
            except RayActorError as error:
                raise self._unavailable("lost its replica") from error

    async def _call(self, image: bytes | np.ndarray, options: Options, draw: bool) -> Detected:
        by_grpc = not draw and memoryview(image).nbytes <= MAX_GRPC_BYTES
        handle = self._handle_by_grpc if by_grpc else self._handle
        try:
            return await handle.detect.remote(image, options, draw)
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
class Gateway(GrpcCalls):
    """Serves the routes with the replicas' handles, which arrive in the order of `infos`.

    `max_in_flight`: requests of each model that this gateway admits. `controller`: of the roll-outs, if there may be any.
    """

    def __init__(self, infos: list[ServedInfo], settings: Settings, max_in_flight: list[int],
                 controller: DeploymentHandle | None, *handles: DeploymentHandle):
        self._models = {info.name: Canary(RemoteModel(info, handle, most), connected_to(info, most))
                        for info, handle, most in zip(infos, handles, max_in_flight, strict=True)}
        self._settings, self._controller = settings, controller

    def __serve_build_asgi_app__(self) -> FastAPI:
        name = serve.get_replica_context().replica_id.unique_id
        api = build_api(self._models, self._settings, name)
        self.grpc_service = api.state.grpc_service
        if self._controller is not None:
            api.user_middleware.append(Middleware(Remembered))  # the innermost: the request has its id by then
            api.router.lifespan_context = _reporting(Reporter(name, self._models, self._controller),
                                                     api.router.lifespan_context)
        return api


def _reporting(reporter: Reporter, within: Callable) -> Callable:
    """The lifespan of an application that also reports."""
    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(reporter.run())
        try:
            async with within(api):
                yield
        finally:
            task.cancel()

    return lifespan


def connected_to(info: ServedInfo, max_in_flight: int) -> Callable[[Split], RemoteModel]:
    """Split -> the candidate of a model."""
    def connect(split: Split) -> RemoteModel:
        handle = serve.get_deployment_handle(f"detector-{info.name}", split.application)
        return RemoteModel(replace(info, ref=split.candidate), handle, max_in_flight)

    return connect
