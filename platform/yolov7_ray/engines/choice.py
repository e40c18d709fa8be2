"""Which engine runs a model: the one that was asked for, or the fastest by measurement.

B images · N predictions of an image · C classes
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..errors import JobError
from .device import device_kind
from .engine import ENGINES, Engine, TorchEngine, library
from .folded import FoldedModel
from .names import EngineName, Precision

TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
"""Largest difference of an engine's scores and of its boxes, these as a share of the image's side, from PyTorch's in
fp32: more is a fault. What bf16 and int8 cost in AP, publishing measures."""
TRIALS = 5
"""Inferences by which engines are compared, after one to warm up."""


def usual_precision(device: torch.device) -> Precision:
    """That of an endpoint if its job names none: bf16 on a GPU."""
    return "bf16" if device.type == "cuda" else "fp32"


@dataclass(frozen=True)
class Measured:
    """What was found out about an engine."""

    engine: str
    precision: str
    milliseconds: float | None
    """Median per image; None: it does not run here."""
    problem: str | None = None

    def __str__(self) -> str:
        result = f"{self.milliseconds:.1f} ms" if self.problem is None else self.problem
        return f"{self.engine} {self.precision} {result}"


def chosen(folded: FoldedModel, device: torch.device, size_px: int, engine: EngineName,
           precision: Precision | Literal["auto"]) -> tuple[Engine, list[Measured]]:
    """The engine that runs the model, and what it was chosen by; nothing if it was asked for.

    auto: the fastest of those with which the version was published, if that was on a device of this kind, with the same
    libraries; else the fastest of all, by measurement. The precision auto is then that of the fastest; else the
    usual one.
    JobError if the engine is unknown, is not installed, or does not run here.
    """
    if engine != "auto":
        if engine not in ENGINES:
            raise JobError("engine", f"'{engine}' is unknown", f"choose auto, {', '.join(ENGINES)}")
        return ENGINES[engine](folded, device, usual_precision(device) if precision == "auto" else precision), []
    known = [found for found in folded.compiled if precision in ("auto", found.precision)]
    valid = [found for found in known if (found.device, found.library) == (device_kind(device), library(found.engine))]
    if valid:
        best = min(valid, key=lambda found: found.milliseconds)
        return (ENGINES[best.engine](folded, device, best.precision),
                [Measured(found.engine, found.precision, found.milliseconds) for found in valid])
    usual = usual_precision(device) if precision == "auto" else precision
    published = [(found.engine, found.precision) for found in known]
    candidates = dict.fromkeys([*((name, usual) for name in ENGINES), *published])
    return fastest(folded, device, size_px, list(candidates), published)


def fastest(folded: FoldedModel, device: torch.device, size_px: int, candidates: Sequence[tuple[str, Precision]],
            trusted: Sequence[tuple[str, Precision]] = ()) -> tuple[Engine, list[Measured]]:
    """The fastest of engines and precisions for images of this size whose predictions are PyTorch's, and what all took.

    Those that are not installed, or do not run on the device, are left out. The predictions of `trusted` ones are not
    compared: their AP is known. JobError if none runs.
    """
    images = noise(size_px)
    expected = None if folded.model is None else TorchEngine(folded, device, "fp32").predict(images).float().cpu()
    engines, measured = [], []
    for name, precision in candidates:
        try:
            engine = ENGINES[name](folded, device, precision)
            found = engine.predict(images).float().cpu()
        except JobError as error:
            measured.append(Measured(name, precision, None, error.problem))
            continue
        if expected is not None and (name, precision) not in trusted:
            difference = largest_difference(found, expected, size_px)
            if not difference <= TOLERANCE[precision]:
                measured.append(Measured(name, precision, None, f"differs by {difference:.1g} from PyTorch in fp32"))
                continue
        engines.append(engine)
        measured.append(Measured(name, precision, statistics.median(timed_ms(partial(engine.predict, images)))))
    times = [found.milliseconds for found in measured if found.milliseconds is not None]
    if not times:
        raise JobError("engine", f"none runs this model here: {', '.join(map(str, measured))}",
                       "pip install 'yolov7-ray[onnxruntime]'")
    return engines[times.index(min(times))], measured


def noise(size_px: int) -> Tensor:
    """(1, 3, H, W) uint8: what engines are compared on."""
    return torch.randint(0, 256, (1, 3, size_px, size_px), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def timed_ms(work: Callable[[], Tensor], trials: int = TRIALS) -> list[float]:
    """Milliseconds of a few calls, the results on the CPU."""
    times = []
    for _ in range(trials):
        begun = time.perf_counter()
        work().cpu()
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def largest_difference(predictions: Tensor, expected: Tensor, size_px: int) -> float:
    """Of scores (…, 4:), and of boxes (…, :4) as a share of the image's side, these where an object is likely."""
    likely = expected[..., 4] >= expected[..., 4].quantile(0.99)
    boxes = (predictions - expected)[likely][:, :4].abs().max() / size_px
    return max(boxes.item(), (predictions - expected)[..., 4:].abs().max().item())
