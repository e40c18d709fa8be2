"""What an endpoint counts, as Prometheus reads it at `/metrics`.

Every gateway counts its own requests, under its own label `gateway`: with several, a scrape meets one of them.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from fastapi import FastAPI, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...detect.options import Options
from ..served import Detected, ServedInfo, ServedModel

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SCORES = tuple(number / 10 for number in range(1, 11))
COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 300)


class Metrics:
    """The figures of one gateway."""

    def __init__(self, gateway: str) -> None:
        self.registry = CollectorRegistry()
        self._gateway = {"gateway": gateway}
        of_model = ("gateway", "model", "version")
        self._requests = Counter("yolov7_requests", "HTTP requests by route and status",
                                 ("gateway", "method", "route", "status"), registry=self.registry)
        self._images = Counter("yolov7_images", "Images sent to a model, by the status of their answer",
                               (*of_model, "status"), registry=self.registry)
        self._duration = Histogram("yolov7_request_seconds", "Time from a request's headers to its answer",
                                   ("gateway", "route"), buckets=SECONDS, registry=self.registry)
        self._stage = Histogram("yolov7_stage_seconds", "Time of a detected image by stage: wait, decode, model",
                                (*of_model, "stage"), buckets=SECONDS, registry=self.registry)
        self._batch = Histogram("yolov7_batch_size", "Images that went through the model together", of_model,
                                buckets=BATCHES, registry=self.registry)
        self._objects = Histogram("yolov7_objects_per_image", "Detections in an image", of_model, buckets=COUNTS,
                                  registry=self.registry)
        self._detections = Counter("yolov7_detections", "Detections by class", (*of_model, "class_name"),
                                   registry=self.registry)
        self._scores = Histogram("yolov7_detection_score", "Scores of detections", of_model, buckets=SCORES,
                                 registry=self.registry)
        self._captured = Counter("yolov7_captured_images", "Images to keep: written, dropped as too many waited, failed",
                                 ("gateway", "model", "outcome"), registry=self.registry)
        self._in_flight = Gauge("yolov7_requests_in_flight", "Requests that are being answered", ("gateway",),
                                registry=self.registry)

    def serving(self, models: Mapping[str, ServedModel]) -> None:
        """Tell version and engine of these models, as they are when they are asked for."""
        self.registry.register(_Served(self._gateway["gateway"], models))

    def captured(self, model: str, outcome: str, count: int) -> None:
        """Count images that were chosen to be kept: written, dropped or failed."""
        self._captured.labels(**self._gateway, model=model, outcome=outcome).inc(count)

    def detected(self, image: bytes | np.ndarray, options: Options, found: Detected, seconds: float) -> None:
        """Count an image that was looked at."""
        labels = self._gateway | {"model": found.info.name, "version": found.info.version}
        self._images.labels(**labels, status=200).inc()
        for stage, milliseconds in found.stages_ms.items():
            self._stage.labels(**labels, stage=stage).observe(milliseconds / 1e3)
        self._batch.labels(**labels).observe(found.batch_size)
        self._objects.labels(**labels).observe(len(found.detections))
        classes, scores = found.info.classes, self._scores.labels(**labels)
        for score, label in found.detections[:, 4:6].tolist():
            scores.observe(score)
            self._detections.labels(**labels, class_name=classes[int(label)]).inc()

    def failed(self, info: ServedInfo, status: int, seconds: float) -> None:
        """Count an image without an answer."""
        self._images.labels(**self._gateway, model=info.name, version=info.version, status=status).inc()

    def add_to(self, api: FastAPI, dependencies: list) -> None:
        """Count every request of the application, and answer `/metrics`; HEAD is answered as GET without a body."""
        api.add_middleware(_Counting, metrics=self)

        @api.get("/metrics", include_in_schema=False, dependencies=dependencies)
        async def metrics() -> Response:
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Callable[[int], None]]:
        """Count a request while the block runs, which tells the status of the answer."""
        begun, statuses, in_flight = time.perf_counter(), [500], self._in_flight.labels(**self._gateway)
        in_flight.inc()
        try:
            yield statuses.append
        finally:
            in_flight.dec()
            route = getattr(scope.get("route"), "path", "other")  # of unknown paths one name, not thousands
            self._requests.labels(**self._gateway, method=scope["method"], route=route, status=statuses[-1]).inc()
            self._duration.labels(**self._gateway, route=route).observe(time.perf_counter() - begun)


class _Served:
    """A collector of Prometheus: one series of value 1 for each model."""

    def __init__(self, gateway: str, models: Mapping[str, ServedModel]) -> None:
        self._gateway, self._models = gateway, models

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Version and engine are labels."""
        family = GaugeMetricFamily("yolov7_model_info", "Models that are served, by version and engine",
                                   labels=("gateway", "model", "version", "engine"))
        for info in (model.info for model in self._models.values()):
            family.add_metric((self._gateway, info.name, info.version, info.engine), 1)
        yield family


class _Counting:
    """ASGI middleware: nothing of a request or answer is held."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        scope = dict(scope, method="GET" if scope["method"] == "HEAD" else scope["method"])
        with self._metrics.request(scope) as tell_status:
            async def counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    tell_status(message["status"])
                await send(message)

            await self._app(scope, receive, counted)
