"""What a model costs, known before it is trained: parameters and FLOPs exactly, latency measured."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache

import numpy as np
import torch

from yolov7.architectures.language import Architecture
from yolov7.model.describe import count_flops, count_parameters
from yolov7.model.detector import build_model
from yolov7.model.reparameterize import reparameterize

from .. import storage
from ..engines.choice import usual_precision
from ..engines.device import processor
from ..engines.engine import ENGINES
from ..engines.folded import FoldedModel
from ..errors import NotFound, StorageError
from ..train.spec import TrainSpec
from .objectives import LATENCIES
from .spec import TuneSpec

SERVING_BATCH = 8
"""Images of the larger batch: what an endpoint gathers by default."""
SECONDS = 2.0
"""How long each batch is measured."""
LEAST_REPEATS, MOST_REPEATS = 5, 200
MEASURED = "latency"
"""In a search's directory: one file per architecture, image size and device."""


def needs_latency(spec: TuneSpec) -> bool:
    """Whether a search weighs or bounds a latency."""
    return any(name in LATENCIES for name in (*spec.objectives, *spec.constraints))


def model_costs(job: TrainSpec, num_classes: int) -> dict[str, float]:
    """``gflops`` of one image and ``parameters`` of the re-parameterised model, counted without building it."""
    architecture, size_px = job.build_architecture(), job.data.image_size_px
    parameters, flops = _counted(architecture, num_classes)
    side = size_px / architecture.default_image_size_px  # FLOPs grow with the square of it, exactly
    return {"gflops": flops * side ** 2 / 1e9, "parameters": parameters}


@cache
def _counted(architecture: Architecture, num_classes: int) -> tuple[int, int]:
    """Parameters, and FLOPs at the architecture's own image size."""
    with torch.device("meta"):
        model = build_model(architecture, num_classes, folded=True)
    return count_parameters(model), count_flops(model, architecture.default_image_size_px)


def latency(run: str, job: TrainSpec, num_classes: int) -> dict[str, float | str]:
    """`measure_latency` of the job's model on this worker's device; measured once for each architecture, image size
    and kind of device of a search, and kept in its directory, ``run``.
    """
    architecture, device = job.build_architecture(), worker_device(job)
    name = device_name(device, threads(job))
    identity = json.dumps([asdict(architecture), num_classes, job.data.image_size_px, name], sort_keys=True)
    uri = storage.join(run, MEASURED, hashlib.sha256(identity.encode()).hexdigest()[:16] + ".json")
    with suppress(NotFound):
        return storage.read_json(uri)
    found = measure_latency(architecture, num_classes, job.data.image_size_px, device, threads(job))
    with suppress(StorageError):  # another trial measures it again
        storage.write_json(uri, found)
    return found


def worker_device(job: TrainSpec) -> torch.device:
    """Where a worker of the job computes, and so its endpoint."""
    return torch.device("cuda" if job.resources.gpus_per_worker and torch.cuda.is_available() else "cpu")


def threads(job: TrainSpec) -> int:
    """CPU threads of a worker of the job."""
    return max(1, int(job.resources.cpus_per_worker))


def device_name(device: torch.device, num_threads: int) -> str:
    """Kind of device, in words; measurements on two of the same kind are taken as the same."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {num_threads} thread{'s' if num_threads > 1 else ''}"


def measure_latency(architecture: Architecture, num_classes: int, size_px: int, device: torch.device,
                    num_threads: int) -> dict[str, float | str]:
    """Milliseconds of the re-parameterised model in the endpoint's engine, from uint8 images to predictions; decoding
    and NMS are left out, and so is waiting for a core that others use. Weights are fresh: they do not change the time.

    ``latency_ms``: median of one image, ``latency_ms_spread``: between the quartiles; ``latency_batch_ms``: median of
    one image of `SERVING_BATCH`; ``load``: of the machine's other programs, per CPU, when the measurement began.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        engine = ENGINES["torch"](FoldedModel(reparameterize(build_model(architecture, num_classes))), device,
                                  usual_precision(device))
        one = timed(lambda: _predict(engine, images(1, size_px), device))
        batch = timed(lambda: _predict(engine, images(SERVING_BATCH, size_px), device))
    finally:
        torch.set_num_threads(before)
    low, middle, high = np.quantile(one, (0.25, 0.5, 0.75)) * 1000
    return {"latency_ms": float(middle), "latency_ms_spread": float(high - low),
            "latency_batch_ms": float(np.median(batch)) * 1000 / SERVING_BATCH,
            "load": load, "device": device_name(device, num_threads)}


@cache
def images(count: int, size_px: int) -> torch.Tensor:
    """(B, 3, H, W) uint8 noise."""
    return torch.randint(0, 256, (count, 3, size_px, size_px), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def _predict(engine: object, batch: torch.Tensor, device: torch.device) -> None:
    engine.predict(batch)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], None]) -> list[float]:
    """Seconds of each of many runs, after one to warm up; for about `SECONDS`.

    While others compute on the machine, the time in which this thread waited for a core is taken out: an endpoint has
    its cores to itself.
    """
    run()
    found, end = [], time.perf_counter() + SECONDS
    while len(found) < LEAST_REPEATS or len(found) < MOST_REPEATS and time.perf_counter() < end:
        start, waited = time.perf_counter(), waited_s()
        run()
        found.append(time.perf_counter() - start - (waited_s() - waited))
    return found


def waited_s() -> float:
    """How long this thread has been ready to run while others had the cores; 0 where the system does not tell."""
    with suppress(OSError, ValueError), open("/proc/thread-self/schedstat") as counters:
        _, waiting_ns, _ = map(int, counters.read().split())
        return waiting_ns / 1e9
    return 0.0
