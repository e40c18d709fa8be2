"""A model that is called with images.

B images · n detections · H W pixels of the letterboxed images
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, overload

import numpy as np
import torch

from yolov7.checkpoints.official import import_official
from yolov7.evaluation.augmented_inference import TestTimeAugmentation
from yolov7.evaluation.postprocess import postprocess
from yolov7.images.orientation import displayed_size_hw, read_orientation
from yolov7.images.sample import Letterbox, decode_image, fitted_size_hw, letterbox
from yolov7.model.reparameterize import reparameterize

from .. import storage
from ..data.ingest.image_header import whole_jpeg_size_hw
from ..engines.choice import chosen
from ..engines.folded import ONNX_FILES, FoldedModel
from ..engines.names import EngineName, Precision
from ..engines.onnx_file import OnnxFile, Suppression, read_onnx
from ..errors import JobError
from ..registry.model_source import LoadedModel, load_model
from .detections import Detections
from .inputs import ImageLike, Input, is_many, to_input
from .options import MAX_DETECTIONS, Options

REDUCTION_MARGIN = 1.25
"""How much larger than what the model sees an image is decoded at least: so much the AP was measured with."""
OFFICIAL_SUFFIXES = (".pt", ".pth")


class Detector:
    """A detector on its device, called with an image or many: `Detector("blood@latest")("photo.jpg")`.

    Thread-safe once it is made. `engine` runs the model; `chosen_by` tells why.
    """

    def __init__(
        self, model: str | LoadedModel, *, registry: str | None = "registry",
        device: str | torch.device = "auto", engine: EngineName | None = None,
        precision: Precision | Literal["auto"] = "auto", image_size_px: int | None = None, rectangular: bool = True,
        confidence: float | None = None, iou: float | None = None, max_detections: int = MAX_DETECTIONS,
        multi_label: bool = False, class_agnostic: bool = False, test_time_augmentation: bool = False,
        reduced_decoding: bool = False,
    ) -> None:
        """Load a model: a run (its best checkpoint), a checkpoint, a .safetensors file, NAME, NAME@ALIAS or
        NAME:VERSION of `registry`, an official .pt file (nothing in it is executed), an .onnx file as
        `engines.onnx_file` reads it, or one that is loaded already.

        device: auto (a GPU where there is one), cpu, cuda, cuda:1 …
        engine: torch, onnxruntime, openvino, or auto: the fastest, as measured when the version was published, if that
        was on a device of this kind, else here. Default: torch; of an .onnx file auto.
        precision: fp32, bf16, int8 of versions that were published so, or auto: with the engine auto that of the
        fastest published one; else bf16 on a GPU, fp32 on a CPU.
        image_size_px: longer side of the model's input; default: as it was trained.
        rectangular: pad to the least multiples of the stride instead of a square: fewer pixels, same scale.
        confidence, iou: default 0.25 and 0.45; of an .onnx file that suppresses by itself its own.
        test_time_augmentation: look at every image in three scales, once mirrored; with the engine torch.
        reduced_decoding: decode JPEGs of many pixels at 1/2, 1/4 or 1/8 of their size, which is faster; the pixels that
        the model sees differ a little.
        JobError names what is wrong and what works.
        """
        loaded = model if isinstance(model, LoadedModel) else load(model, registry)
        onnx = loaded if isinstance(loaded, OnnxFile) else None
        engine = engine or ("auto" if onnx else "torch")
        self.source, self.classes = loaded.source, tuple(loaded.classes)
        self._suppression = onnx and onnx.suppression
        usual = self._suppression or Suppression(0.25, 0.45)
        self.options = Options(usual.confidence if confidence is None else confidence,
                               usual.iou if iou is None else iou, max_detections, multi_label, class_agnostic)
        self._check(self.options)
        self.device = chosen_device(device)
        self.stride_px = onnx.stride_px if onnx else max(loaded.model.strides)
        if not (image_size_px or loaded.image_size_px):
            raise JobError("image_size_px", "nobody says for which size", "give it")
        self.image_size_px = checked_size_px(image_size_px or loaded.image_size_px, self.stride_px)
        if onnx and not onnx.any_size and self.image_size_px != onnx.image_size_px:
            raise JobError("image_size_px", f"{self.image_size_px} does not fit {self.source}",
                           f"it takes {onnx.image_size_px}")
        self.reduced_decoding = reduced_decoding
        self.rectangular = rectangular and (onnx is None or onnx.any_size)
        if test_time_augmentation and engine != "torch":
            raise JobError("test_time_augmentation", f"does not run with the engine {engine}", "choose torch")
        self._folded = self._folded_of(loaded, test_time_augmentation)
        self.engine, self.measured = chosen(self._folded, self.device, self.image_size_px, engine, precision)

    def _folded_of(self, loaded: LoadedModel | OnnxFile, test_time_augmentation: bool) -> FoldedModel:
        if isinstance(loaded, OnnxFile):
            return FoldedModel(None, files={ONNX_FILES["fp32"]: lambda: loaded.data})
        network = loaded.model if loaded.model.is_folded else reparameterize(loaded.model)
        if test_time_augmentation:
            network = TestTimeAugmentation(network)
        return FoldedModel(network, self.classes, self.image_size_px,
                           {name: artifact.read for name, artifact in loaded.artifacts.items()}, loaded.compiled)

    @property
    def chosen_by(self) -> str:
        """Why this engine runs the model, and why the model was exported for it; empty if it was asked for."""
        export = self._folded.exported_because
        reasons = ", ".join(map(str, self.measured))
        return "; ".join(filter(None, [reasons, export and f"exported here, which takes many seconds: {export}"]))

    def __repr__(self) -> str:
        return (f"<Detector {self.source}: {len(self.classes)} classes, {self.image_size_px} px, {self.engine.name} "
                f"{self.engine.precision} on {self.device}>")

    @overload
    def __call__(self, images: ImageLike, *, batch_size: int = 16, **options: float) -> Detections: ...
    @overload
    def __call__(self, images: Iterable[ImageLike], *, batch_size: int = 16, **options: float) -> list[Detections]: ...

    def __call__(self, images, *, batch_size=16, **options):
        """The objects in an image, or a list of them for several: a list, tuple, iterator, or array (B, H, W, 3).

        options: those of `Options`, for this call. JobError if one is no image, before any is processed if its type
        or shape shows it.
        """
        wanted = self._check(replace(self.options, **options))
        if not is_many(images):
            return self._detected([to_input(images)], wanted)[0]
        inputs, found = map(to_input, images), []
        while batch := list(islice(inputs, max(1, batch_size))):
            found += self._detected(batch, wanted)
        return found

    def _detected(self, inputs: Sequence[Input], options: Options) -> list[Detections]:
        with ThreadPoolExecutor(min(len(inputs), os.cpu_count() or 1)) as pool:
            fitted = list(pool.map(self._fitted, inputs))
        found: list[Detections | None] = [None] * len(inputs)
        for shape in dict.fromkeys(pixels.shape for pixels, _ in fitted):
            alike = [i for i, (pixels, _) in enumerate(fitted) if pixels.shape == shape]
            answers = self.run([fitted[i][0] for i in alike], [options] * len(alike))
            for i, detections in zip(alike, answers, strict=True):
                found[i] = self._of_input(inputs[i], fitted[i][1], detections)
        return found

    def _fitted(self, given: Input) -> tuple[np.ndarray, Letterbox]:
        if self.reduced_decoding and given.encoded is not None:
            with suppress(ValueError):  # what cannot be decoded is told below
                return self.open(given.encoded())
        return self.fit(given.pixels())

    def _of_input(self, given: Input, fit: Letterbox, detections: np.ndarray) -> Detections:
        return Detections(fit.to_original(detections[:, :4]), detections[:, 4], detections[:, 5].astype(np.int64),
                          self.classes, fit.original_size_hw, given.source, given.pixels)

    def _check(self, options: Options) -> Options:
        """JobError if a file that suppresses by itself cannot do so."""
        own = self._suppression
        if own is None or (options.confidence >= own.confidence and options.iou == own.iou
                           and not options.multi_label and not options.class_agnostic):
            return options
        raise JobError("options", f"do not fit the suppression in {self.source}",
                       f"leave iou {own.iou:g}, give a confidence of {own.confidence:g} or more, or export the file "
                       "without suppression")

    # --- the parts, for those who gather batches themselves ---------------------------------------------

    def open(self, data: bytes) -> tuple[np.ndarray, Letterbox]:
        """Decode an image and `fit` it; ValueError where it is none."""
        stored_hw = whole_jpeg_size_hw(data) if self.reduced_decoding else None
        if stored_hw is None:
            return self.fit(decode_image(data))
        size_hw = displayed_size_hw(stored_hw, read_orientation(data))
        return self.fit(decode_image(data, reduction(size_hw, self.image_size_px)), size_hw)

    def fit(self, image: np.ndarray, original_hw: tuple[int, int] | None = None) -> tuple[np.ndarray, Letterbox]:
        """Fit RGB pixels (H, W, 3) uint8 into the model's input, by the square or the least rectangle that holds it.

        original_hw: the full size of an image that was decoded at a part of it.
        """
        original_hw = original_hw or image.shape[:2]
        square = (self.image_size_px, self.image_size_px)
        canvas = least_canvas_hw(original_hw, self.image_size_px, self.stride_px) if self.rectangular else square
        return letterbox(image, square, canvas_hw=canvas, original_hw=original_hw)

    @torch.inference_mode()
    def run(self, images: Sequence[np.ndarray], options: Sequence[Options]) -> list[np.ndarray]:
        """Letterboxed images of one shape (H, W, 3) uint8 -> detections (n, 6) float32 of each, best first: x1, y1,
        x2, y2 in their pixels, score, class. One forward pass for all."""
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        if self._suppression is not None:  # detections come out: image, box, score, class
            found = [self.engine.predict(pixels[i:i + 1])[:, 1:].numpy() for i in range(len(pixels))]
            return [each[each[:, 4] > wanted.confidence][:wanted.max_detections]
                    for each, wanted in zip(found, options, strict=True)]
        predictions = self.engine.predict(pixels)
        return [postprocess(predictions[i:i + 1], wanted.confidence, wanted.iou, wanted.multi_label,
                            wanted.class_agnostic, wanted.max_detections)[0].cpu().numpy()
                for i, wanted in enumerate(options)]

    def warm_up(self, max_batch_size: int = 1) -> None:
        """Run noise through the model, alone and as a full batch, so that nobody waits for the first inference."""
        noise = np.random.default_rng(0).integers(0, 256, (self.image_size_px, self.image_size_px, 3), np.uint8)
        for size in {1, max_batch_size}:
            self.run([noise] * size, [replace(self.options, confidence=0.001)] * size)


def load(ref: str, registry: str | None = None) -> LoadedModel | OnnxFile:
    """A model by its reference, official .pt and .onnx files included. JobError if there is none."""
    if str(ref).endswith(".onnx"):
        return read_onnx(storage.read_bytes(str(ref)), str(ref))
    if not str(ref).endswith(OFFICIAL_SUFFIXES):
        return load_model(str(ref), registry)
    with TemporaryDirectory(prefix="yolov7-model-") as directory:
        path = Path(directory, "official.pt")
        storage.download(str(ref), path)
        try:
            model, classes = import_official(path)
        except ValueError as error:
            raise JobError(str(ref), str(error).removeprefix(f"{path}: "), "give weights of an official YOLOv7") from error
    return LoadedModel(model, classes, model.architecture.default_image_size_px, str(ref), {})


def chosen_device(device: str | torch.device) -> torch.device:
    """JobError for one that is not here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise JobError("device", f"'{device}' is unknown", "choose auto, cpu, cuda or cuda:NUMBER") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise JobError("device", f"'{device}' is not there: {torch.cuda.device_count()} GPUs are", "choose auto or cpu")
    return chosen


def checked_size_px(size_px: int, stride_px: int) -> int:
    """JobError unless it is a multiple of the stride."""
    if size_px < 1 or size_px % stride_px:
        lower = max(1, size_px // stride_px) * stride_px
        raise JobError("image_size_px", f"{size_px} is not a multiple of the model's largest stride {stride_px}",
                       f"choose {lower} or {lower + stride_px}")
    return size_px


def reduction(size_hw: tuple[int, int], size_px: int) -> int:
    """The part, 1/1 to 1/8, at which an image of this size is decoded, so that it is still larger than what is seen."""
    _, fitted_hw = fitted_size_hw(size_hw, (size_px, size_px))
    factor = min(size / fitted for size, fitted in zip(size_hw, fitted_hw))
    return next((part for part in (8, 4, 2) if factor >= REDUCTION_MARGIN * part), 1)


def least_canvas_hw(size_hw: tuple[int, int], size_px: int, stride_px: int) -> tuple[int, int]:
    """The smallest canvas in multiples of the stride that holds an image fitted into the square of `size_px`."""
    _, fitted_hw = fitted_size_hw(size_hw, (size_px, size_px))
    height, width = (-(-side // stride_px) * stride_px for side in fitted_hw)
    return height, width
