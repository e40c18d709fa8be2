"""What runs a folded model. A new engine is one class here, and one line in `ENGINES`.

B images · N predictions of an image · C classes · H W side of the images, multiples of the largest stride
"""

import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from yolov7.checkpoints.export import export_onnx
from yolov7.images.batch import normalize
from yolov7.model.detector import YOLO
from yolov7.training.engine import autocast

from ..errors import JobError
from .options import Precision

TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
"""Largest difference of an engine's scores and of its boxes, these as a share of the image's side, from PyTorch's in
fp32: more is a fault. What bf16 costs in AP, publishing measures."""
TRIALS = 5
"""Inferences by which `fastest` compares engines, after one to warm up."""


class Engine(Protocol):
    """A folded model, ready to run on its device."""

    name: str
    precision: Precision

    def predict(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB on the CPU -> (B, N, 5 + C): cx, cy, w, h in pixels, objectness, class scores."""


class TorchEngine:
    """PyTorch, channels last, on the CPU or a GPU."""

    name = "torch"

    def __init__(self, model: YOLO, device: torch.device, precision: Precision = "fp32") -> None:
        self.model = model.eval().to(device, memory_format=torch.channels_last)
        self.device, self.precision = device, precision

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            return self.model(normalize(images.to(self.device)))


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU, with as many threads as PyTorch has."""

    name = "onnxruntime"

    def __init__(self, model: YOLO, device: torch.device, precision: Precision = "fp32") -> None:
        _require(self.name, device, precision, {"cpu"}, {"fp32"})
        runtime = _import("onnxruntime", self.name)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        self.precision = precision
        self._session = runtime.InferenceSession(onnx_file(model), options, providers=["CPUExecutionProvider"])

    def predict(self, images: Tensor) -> Tensor:
        pixels = normalize(images).contiguous().numpy()
        return torch.from_numpy(self._session.run(None, {"images": pixels})[0])


class OpenVinoEngine:
    """OpenVINO on the CPU, with as many threads as PyTorch has; it takes bytes and normalises them itself.

    A batch runs image by image: on a CPU a batch is no faster, and one compiled program does for every batch size.
    """

    name = "openvino"

    def __init__(self, model: YOLO, device: torch.device, precision: Precision = "fp32") -> None:
        _require(self.name, device, precision, {"cpu"}, {"fp32", "bf16"})
        sys.modules.setdefault("openvino_telemetry", None)  # what its tools would send is never loaded
        self._library = _import("openvino", self.name)
        self._core, self.precision = self._library.Core(), precision
        self._settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY",
                          "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision)}
        self._onnx = onnx_file(model)
        self._compiled: dict[tuple[int, int], Any] = {}

    def predict(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        request = self._request(pixels.shape[1:3])
        found = [request.infer({0: pixels[i:i + 1]})[0].copy() for i in range(len(pixels))]
        return torch.from_numpy(np.concatenate(found))

    def _request(self, size_hw: tuple[int, int]) -> Any:
        """The program for images of this size, compiled when it is first needed."""
        if size_hw not in self._compiled:
            library = self._library
            steps = library.preprocess.PrePostProcessor(self._core.read_model(self._onnx))
            images = steps.input()
            images.tensor().set_element_type(library.Type.u8).set_layout(library.Layout("NHWC"))
            images.model().set_layout(library.Layout("NCHW"))
            images.preprocess().convert_element_type(library.Type.f32).scale(255.0)
            program = steps.build()
            program.reshape([1, *size_hw, 3])
            self._compiled[size_hw] = self._core.compile_model(program, "CPU", self._settings).create_infer_request()
        return self._compiled[size_hw]


ENGINES: dict[str, Callable[[YOLO, torch.device, Precision], Engine]] = {
    engine.name: engine for engine in (TorchEngine, OnnxRuntimeEngine, OpenVinoEngine)}
"""Name -> what makes the engine of a folded model on a device."""


def usual_precision(device: torch.device) -> Precision:
    """That of an endpoint if its job names none: bf16 on a GPU."""
    return "bf16" if device.type == "cuda" else "fp32"


@dataclass(frozen=True)
class Measured:
    """What `fastest` found out about an engine."""

    engine: str
    precision: str
    milliseconds: float | None
    """Median per image; None: it does not run here."""
    problem: str | None = None

    def __str__(self) -> str:
        return f"{self.engine} {f'{self.milliseconds:.1f} ms' if self.problem is None else self.problem}"


def fastest(model: YOLO, device: torch.device, size_px: int, precision: Precision = "fp32",
            ) -> tuple[Engine, list[Measured]]:
    """The fastest engine for images of this size whose predictions are PyTorch's, and what all of them took.

    Those that are not installed, or do not run on the device, are left out.
    """
    reference = TorchEngine(model, device, "fp32")
    images = torch.randint(0, 256, (1, 3, size_px, size_px), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    expected = reference.predict(images).float().cpu()
    engines, measured = [], []
    for name, make in ENGINES.items():
        try:
            engine = make(model, device, precision)
            difference = largest_difference(engine.predict(images).float().cpu(), expected, size_px)
        except JobError as error:
            measured.append(Measured(name, precision, None, error.problem))
            continue
        if not difference <= TOLERANCE[precision]:
            measured.append(Measured(name, precision, None, f"differs by {difference:.1g} from PyTorch in fp32"))
            continue
        engines.append(engine)
        measured.append(Measured(name, precision, statistics.median(timed_ms(partial(engine.predict, images)))))
    times = [found.milliseconds for found in measured if found.milliseconds is not None]
    return engines[times.index(min(times))], measured


def timed_ms(work: Callable[[], Tensor]) -> list[float]:
    """Milliseconds of a few calls, the results on the CPU."""
    times = []
    for _ in range(TRIALS):
        begun = time.perf_counter()
        work().cpu()
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def largest_difference(predictions: Tensor, expected: Tensor, size_px: int) -> float:
    """Of scores (…, 4:), and of boxes (…, :4) as a share of the image's side, these where an object is likely."""
    likely = expected[..., 4] >= expected[..., 4].quantile(0.99)
    boxes = (predictions - expected)[likely][:, :4].abs().max() / size_px
    return max(boxes.item(), (predictions - expected)[..., 4:].abs().max().item())


_EXPORTED: WeakKeyDictionary[YOLO, bytes] = WeakKeyDictionary()


def onnx_file(model: YOLO) -> bytes:
    """The model as an ONNX file for images of any size; made once, which takes seconds. JobError without the packages."""
    if model not in _EXPORTED:
        with tempfile.TemporaryDirectory(prefix="yolov7-engine-") as directory:
            path = Path(directory, "model.onnx")
            try:
                export_onnx(model.cpu(), path, 2 * max(model.strides), dynamic_size=True)
            except ImportError as error:
                raise JobError("engine", str(error), "or choose the engine torch") from error
            _EXPORTED[model] = path.read_bytes()
    return _EXPORTED[model]


def _import(library: str, engine: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise JobError("engine", f"{engine} needs the package {library}, which is not installed",
                       f"pip install 'yolov7-ray[{engine}]', or choose the engine torch") from error


def _require(engine: str, device: torch.device, precision: str, devices: set[str], precisions: set[str]) -> None:
    if device.type not in devices:
        raise JobError("engine", f"{engine} runs on {', '.join(devices)} here, not on {device.type}",
                       "choose the engine torch")
    if precision not in precisions:
        raise JobError("engine", f"{engine} computes in {', '.join(precisions)}, not in {precision}",
                       "choose another engine or precision")
