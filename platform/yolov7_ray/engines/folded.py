"""A folded model in the forms that engines read."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from yolov7.checkpoints.export import export_onnx
from yolov7.model.detector import YOLO

from ..errors import JobError
from .names import Precision

ONNX_FILES = {"fp32": "model.onnx", "bf16": "model.onnx", "int8": "model.int8.onnx"}
"""Precision -> the file of a version that an engine reads for it: bf16 is how fp32 is computed."""


@dataclass(frozen=True)
class Compiled:
    """An engine that runs a version, as it was measured when the version was published."""

    engine: str
    precision: Precision
    library: str
    """With its version, such as openvino 2026.4.1."""
    file: str | None
    """File of the version that the engine reads; None: the weights."""
    device: str
    """`device_kind` of where it was measured."""
    milliseconds: float
    """Median of one image of the version's size, with one thread."""
    ap: float | None
    """On the split on which the folded model was measured."""
    largest_difference: float
    """Of its scores and boxes from PyTorch's in fp32, see `choice.largest_difference`."""


class FoldedModel:
    """A folded model, and its ONNX files: those that were published with it, else one that is exported here."""

    def __init__(self, model: nn.Module | None, classes: Sequence[str] = (), image_size_px: int = 0,
                 files: Mapping[str, Callable[[], bytes]] | None = None, compiled: Sequence[Compiled] = ()) -> None:
        """model: None of an ONNX file. files: name, as in ONNX_FILES -> what reads it. compiled: by publishing."""
        self.model, self.compiled = model, tuple(compiled)
        self.exported_because = ""
        """Why an ONNX file was exported here; empty if none was."""
        self._classes, self._image_size_px = classes, image_size_px
        self._files, self._read = dict(files or {}), {}

    def onnx(self, precision: Precision) -> bytes:
        """The ONNX file for this precision, for images of any size; exporting it takes many seconds.

        JobError without the packages for that, or where there is none in int8, which needs calibration.
        """
        name = ONNX_FILES[precision]
        if name not in self._read:
            problem = f"there is no {name}"
            if name in self._files:
                try:
                    self._read[name] = self._files[name]()
                except JobError as error:
                    problem = str(error)
            if name not in self._read:
                self._read[name] = self._exported(precision, problem)
        return self._read[name]

    def _exported(self, precision: Precision, problem: str) -> bytes:
        if precision == "int8" or self.model is None:
            raise JobError("precision", f"{precision}: {problem}", "publish the model with this engine and precision "
                           "(`engines`), or choose fp32")
        with tempfile.TemporaryDirectory(prefix="yolov7-engine-") as directory:
            path = Path(directory, "model.onnx")
            try:
                export_for_engines(self.model.cpu(), path, self._classes, self._image_size_px)
            except ImportError as error:
                raise JobError("engine", str(error), "or choose the engine torch") from error
            self.exported_because = problem
            return path.read_bytes()


def export_for_engines(model: YOLO, path: Path, classes: Sequence[str], image_size_px: int) -> None:
    """Write the ONNX file that the engines read: any batch, any size. ImportError without the packages."""
    export_onnx(model, path, max(image_size_px, 2 * max(model.strides)), classes, dynamic_size=True)
