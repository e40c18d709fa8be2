"""A folded model compiled for engines: the files that they read, and what each costs in AP and gains in time.

B images · H W side of the square images
"""

import importlib.util
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from yolov7.evaluation.metrics import CocoEvaluator
from yolov7.images.batch import normalize
from yolov7.images.sample import letterbox
from yolov7.model.detector import YOLO
from yolov7.training.engine import evaluate_predictions

from ..data.reading.dataset import ArrowDataset, evaluation_loader
from ..engines.choice import TOLERANCE, TRIALS, largest_difference, noise, timed_ms
from ..engines.device import device_kind
from ..engines.engine import ENGINES, Engine, library
from ..engines.folded import ONNX_FILES, Compiled, FoldedModel, export_for_engines
from ..engines.quantize import quantized
from ..errors import JobError
from .spec import CompiledFor, PublishSpec

NUM_CALIBRATION_IMAGES = 128
EVALUATION_BATCH_SIZE = 8
CPU = torch.device("cpu")


class BelowGate(JobError):
    """The model is sound, but its AP is below `least_ap`, or an engine's too far below the model's."""


def require_installed(wanted: tuple[CompiledFor, ...]) -> None:
    """JobError for an engine whose packages are not installed here."""
    for engine in dict.fromkeys(each.engine for each in wanted):
        missing = [name for name in (engine, "onnx", "onnxscript") if importlib.util.find_spec(name) is None]
        if missing:
            raise JobError("engines", f"{engine} needs {', '.join(missing)}, not installed where the job runs",
                           f"pip install 'yolov7-ray[{engine}]'")
    if any(each.precision == "int8" for each in wanted) and importlib.util.find_spec("onnxruntime") is None:
        raise JobError("engines", "int8 is quantised with onnxruntime, which is not installed where the job runs",
                       "pip install 'yolov7-ray[onnxruntime]'")


@dataclass(frozen=True)
class Compiler:
    """Compiles one folded model, for square images of one size, as a publish job wants it."""

    spec: PublishSpec
    model: YOLO
    """Folded, on the CPU."""
    dataset: ArrowDataset
    """The split that measures."""
    size_px: int
    ap: float | None
    """Of the model in PyTorch, in fp32, on the split."""

    def compile(self, directory: Path) -> tuple[dict[str, Path], list[Compiled]]:
        """Write the files for the engines; return them by name, and what was measured, PyTorch in fp32 first.

        BelowGate where an engine's AP is too low; JobError where it differs in fp32.
        """
        files = self._files(directory)
        measured = [("torch", "fp32", 0.0, self.ap), *(self._checked(wanted, files) for wanted in self.spec.engines)]
        times = self._milliseconds([(engine, precision) for engine, precision, *_ in measured], files)
        compiled = [Compiled(engine, precision, library(engine), ONNX_FILES[precision] if engine != "torch" else None,
                             device_kind(CPU), milliseconds, ap, difference)
                    for (engine, precision, difference, ap), milliseconds in zip(measured, times, strict=True)]
        shown = ", ".join(f"{found.engine} {found.precision} {found.milliseconds:.1f} ms" for found in compiled)
        print(f"publish: one image of {self.size_px} px with one thread: {shown}", flush=True)
        return files, compiled

    def _files(self, directory: Path) -> dict[str, Path]:
        """Name, as in ONNX_FILES -> the file."""
        names = dict.fromkeys(ONNX_FILES[each.precision] for each in self.spec.engines)
        files = {name: directory / name for name in names}
        exported = directory / ONNX_FILES["fp32"]
        export_for_engines(self.model, exported, self.dataset.classes, self.size_px)
        if ONNX_FILES["int8"] in files:
            files[ONNX_FILES["int8"]].write_bytes(quantized(exported.read_bytes(), self._calibration_images()))
        return files

    def _calibration_images(self) -> Iterator[np.ndarray]:
        """(1, 3, H, W) float32 in [0, 1], evenly over the split."""
        split = ArrowDataset(self.spec.dataset, self.spec.calibration_split, self.dataset.cache)
        if not len(split):
            raise JobError("calibration_split", f"'{self.spec.calibration_split}' has no images",
                           "give one that has some")
        for index in np.linspace(0, len(split) - 1, min(len(split), NUM_CALIBRATION_IMAGES)).round().astype(int):
            pixels, _ = letterbox(split.read(index).image, (self.size_px, self.size_px))
            yield normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None]).contiguous().numpy()

    def _engine(self, name: str, precision: str, files: dict[str, Path]) -> Engine:
        readers = {name: path.read_bytes for name, path in files.items()}
        return ENGINES[name](FoldedModel(self.model, files=readers), CPU, precision)

    def _checked(self, wanted: CompiledFor, files: dict[str, Path]) -> tuple[str, str, float, float | None]:
        """Engine, precision, largest difference from PyTorch in fp32 on some images, and AP on the split."""
        engine, name = self._engine(wanted.engine, wanted.precision, files), f"{wanted.engine} {wanted.precision}"
        batches = partial(evaluation_loader, self.dataset, size_px=self.size_px, batch_size=EVALUATION_BATCH_SIZE,
                          rank=0, world_size=1)
        difference = self._difference(engine, next(iter(batches())).images)
        if wanted.precision == "fp32" and not difference <= TOLERANCE["fp32"]:
            raise JobError(self.spec.model, f"{name} differs by {difference:.1e} from PyTorch, more than "
                           f"{TOLERANCE['fp32']:.0e}; nothing was registered", "leave this engine out")
        truths = (self.dataset.truth(index) for index in range(len(self.dataset)))
        evaluator = CocoEvaluator(list(self.dataset.classes))
        ap = evaluate_predictions(engine.predict, batches(), truths, evaluator).compute().ap
        tolerance = self.spec.ap_tolerance if wanted.ap_tolerance is None else wanted.ap_tolerance
        lost = (self.ap or 0.0) - (ap or 0.0)
        print(f"publish: {name}: AP {(ap or 0.0):.4f}, {-lost:+.4f} against PyTorch in fp32, tolerance {tolerance:g}",
              flush=True)
        if not lost <= tolerance:
            raise BelowGate(self.spec.model, f"{name} loses {lost:.4f} AP, more than ap_tolerance {tolerance:g}; nothing "
                            "was registered", "leave this engine and precision out, or raise its ap_tolerance")
        return wanted.engine, wanted.precision, difference, ap

    def _difference(self, engine: Engine, images: Tensor) -> float:
        with torch.inference_mode():
            return largest_difference(engine.predict(images).float(), self.model(normalize(images)), self.size_px)

    def _milliseconds(self, engines: list[tuple[str, str]], files: dict[str, Path]) -> list[float]:
        """Median of one image with one thread, of each; they take turns, so that other work on the machine hits all."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            ready = [self._engine(name, precision, files) for name, precision in engines]
            runs = [partial(engine.predict, noise(self.size_px)) for engine in ready]
            for run in runs:
                run()
            turns = [[timed_ms(run, 1)[0] for run in runs] for _ in range(2 * TRIALS)]
        finally:
            torch.set_num_threads(before)
        return [statistics.median(times) for times in zip(*turns)]
