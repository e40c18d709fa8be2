"""What runs a folded model. A new engine is one class here, and one line in `ENGINES`.

B images · N predictions of an image · C classes · H W side of the images, multiples of the largest stride
"""

import importlib
import importlib.metadata
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from yolov7.images.batch import normalize
from yolov7.training.engine import autocast

from ..errors import JobError
from .folded import FoldedModel
from .names import Precision


class Engine(Protocol):
    """A folded model, ready to run on its device."""

    name: str
    precision: Precision

    def predict(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB on the CPU -> (B, N, 5 + C): cx, cy, w, h in pixels, objectness, class scores."""


class TorchEngine:
    """PyTorch, channels last, on the CPU or a GPU."""

    name = "torch"

    def __init__(self, folded: FoldedModel, device: torch.device, precision: Precision = "fp32") -> None:
        _require(self.name, device, precision, {device.type}, {"fp32", "bf16"})
        if folded.model is None:
            raise JobError("engine", "torch does not run ONNX files", "choose auto, onnxruntime or openvino")
        self.model = folded.model.eval().to(device, memory_format=torch.channels_last)
        self.device, self.precision = device, precision

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            return self.model(normalize(images.to(self.device)))


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU, with as many threads as PyTorch has."""

    name = "onnxruntime"

    def __init__(self, folded: FoldedModel, device: torch.device, precision: Precision = "fp32") -> None:
        _require(self.name, device, precision, {"cpu"}, {"fp32", "int8"})
        runtime = _import("onnxruntime", self.name)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        self.precision = precision
        self._session = runtime.InferenceSession(folded.onnx(precision), options, providers=["CPUExecutionProvider"])
        [self._input] = self._session.get_inputs()
        self._batch_size = self._input.shape[0] if isinstance(self._input.shape[0], int) else None

    def predict(self, images: Tensor) -> Tensor:
        pixels = normalize(images).contiguous().numpy()
        batches = [pixels] if self._batch_size is None else np.split(pixels, len(pixels) // self._batch_size)
        return _joined([self._session.run(None, {self._input.name: batch})[0] for batch in batches])


class OpenVinoEngine:
    """OpenVINO on the CPU, with as many threads as PyTorch has; it takes bytes and normalises them itself.

    A batch runs image by image: on a CPU a batch is no faster, and one compiled program does for every batch size.
    """

    name = "openvino"

    def __init__(self, folded: FoldedModel, device: torch.device, precision: Precision = "fp32") -> None:
        _require(self.name, device, precision, {"cpu"}, {"fp32", "bf16", "int8"})
        sys.modules.setdefault("openvino_telemetry", None)  # what its tools would send is never loaded
        self._library = _import("openvino", self.name)
        self._core, self.precision = self._library.Core(), precision
        self._settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY",
                          "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
        self._onnx = folded.onnx(precision)
        self._compiled: dict[tuple[int, int], Any] = {}
        self._lock = threading.Lock()  # a request is of one thread at a time

    def predict(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        with self._lock:
            request = self._request(pixels.shape[1:3])
            found = [request.infer({0: pixels[i:i + 1]}, share_inputs=True, share_outputs=True)[0].copy()
                     for i in range(len(pixels))]
        return _joined(found)

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


ENGINES: dict[str, Callable[[FoldedModel, torch.device, Precision], Engine]] = {
    engine.name: engine for engine in (TorchEngine, OnnxRuntimeEngine, OpenVinoEngine)}
"""Name -> what makes the engine of a folded model on a device."""


def _joined(batches: list[np.ndarray]) -> Tensor:
    """Predictions one after the other; those of one image are not copied, as they are megabytes."""
    return torch.from_numpy(batches[0] if len(batches) == 1 else np.concatenate(batches))


def _import(library: str, engine: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise JobError("engine", f"{engine} needs the package {library}, which is not installed",
                       f"pip install 'yolov7-ray[{engine}]', or choose the engine torch") from error


def library(engine: str) -> str:
    """Name and version of the library that is the engine, such as openvino 2026.4.1."""
    try:
        return f"{engine} {importlib.metadata.version(engine)}"
    except importlib.metadata.PackageNotFoundError:
        return engine


def _require(engine: str, device: torch.device, precision: str, devices: set[str], precisions: set[str]) -> None:
    if device.type not in devices:
        raise JobError("engine", f"{engine} runs on {', '.join(devices)} here, not on {device.type}",
                       "choose the engine torch")
    if precision not in precisions:
        raise JobError("engine", f"{engine} computes in {', '.join(sorted(precisions))}, not in {precision}",
                       "choose another engine or precision")
