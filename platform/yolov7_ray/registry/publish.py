"""Publish: fold a trained checkpoint, verify it, register it as a version, and move an alias to it."""

import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolov7.checkpoints import weights
from yolov7.evaluation.metrics import CocoEvaluator
from yolov7.images.batch import normalize
from yolov7.model.detector import YOLO
from yolov7.model.reparameterize import reparameterize
from yolov7.training.engine import evaluate

from ..data.reading.cache import NodeCache
from ..data.reading.dataset import ArrowDataset, evaluation_loader
from ..errors import JobError
from .compile import EVALUATION_BATCH_SIZE, BelowGate, Compiler, require_installed
from .front import front_of
from .model_source import LoadedModel, load_model
from .registry import Registry
from .spec import PublishSpec
from .validation import VALIDATION_FILE, Validation
from .version import MODEL_FILE, ModelVersion

NUM_PARITY_IMAGES = 8


@dataclass(frozen=True)
class Parity:
    """Difference between the outputs of the folded and the trained model."""

    max_relative_difference: float
    """Largest absolute difference over largest magnitude, the worst of all output tensors."""
    tolerance: float
    num_images: int
    images: str
    """Which images were compared."""


def publish(spec: PublishSpec, run_name: str) -> dict[str, Any]:
    """Fold, check, register and promote one model, or each of a front; return the exact models and the measurements.

    Of several models, those below ``spec.least_ap`` are left out and named; the outputs are those of the first that is
    not, and ``models``. JobError as of `publish_model`; also if none of a front is registered.
    """
    members = front_of(spec)
    if members is None:
        outputs = publish_model(spec)
        return outputs | {"models": {spec.publish_as: {"model": outputs["model"]}}}
    published, refused = {}, []
    for member in members:
        print(f"publish: {member.name}, trial {member.trial}", flush=True)
        try:
            published[member.name] = publish_model(spec.model_copy(update={
                "model": member.model, "publish_as": f"{spec.publish_as}-{member.name}"}))
        except BelowGate as error:
            refused.append(str(error))
            print(f"publish: {error}; it is left out", flush=True)
    if not published:
        raise JobError(spec.model, f"none of its {len(members)} models is registered: {'; '.join(refused) or 'it is empty'}",
                       "search longer, or lower least_ap")
    best = next(iter(published.values()))
    return best | {"models": {name: {"model": outputs["model"]} for name, outputs in published.items()}}


def publish_model(spec: PublishSpec) -> dict[str, Any]:
    """Publish one model; return the exact one, its version, the alias and the measurements.

    Parity and AP are measured on the same file that is registered. JobError if the model cannot be found, is
    already folded, does not fit the dataset, or differs more than spec.parity_tolerance; BelowGate if its AP is low, or
    that of an engine.
    """
    require_installed(spec.engines)
    loaded = load_model(spec.model, spec.registry)
    if loaded.model.is_folded:
        raise JobError(spec.model, "is folded already, so it cannot be compared with what was trained",
                       "give a train run or one of its checkpoints")
    size_px = spec.image_size_px or loaded.image_size_px
    _check_size(loaded.model, size_px)
    dataset = _open_dataset(spec, loaded.classes)
    with tempfile.TemporaryDirectory(prefix="yolov7-publish-") as directory:
        path = Path(directory) / MODEL_FILE
        weights.save_model(path, reparameterize(loaded.model), loaded.classes, image_size_px=size_px)
        folded, _ = weights.load_model(path)
        parity = _checked_parity(spec, loaded.model, folded, dataset, size_px)
        metrics, files = {}, {MODEL_FILE: path}
        if dataset is not None:
            metrics, validation = _evaluate(folded, dataset, size_px, spec)
            files[VALIDATION_FILE] = validation.to_json()
        ap = metrics["overall"]["ap"] if metrics else None
        if spec.least_ap is not None and not (ap or 0.0) >= spec.least_ap:
            raise BelowGate(spec.model, f"its AP {_format_metric(ap)} is below least_ap {spec.least_ap:g}; nothing was "
                            "registered", "train longer, or lower least_ap if you can accept that")
        compiled_files, compiled = {}, []
        if spec.engines:
            compiled_files, compiled = Compiler(spec, folded.cpu(), dataset, size_px, ap).compile(Path(directory))
        registry = Registry(spec.registry)
        version = registry.register(spec.publish_as, files | compiled_files,
                                    _record(loaded, size_px, metrics, parity)
                                    | {"engines": list(map(asdict, compiled))})
    print(f"publish: registered {version.ref} in {spec.registry} ({_megabytes(version):.1f} MB)")
    if spec.alias is not None:
        registry.promote(spec.publish_as, spec.alias, version.version)
        print(f"publish: {spec.publish_as}@{spec.alias} is now {version.ref}")
    return {"model": version.ref, "version": version.version, "alias": spec.alias, "registry": spec.registry,
            "parity": parity.max_relative_difference, "metrics": metrics}


def _open_dataset(spec: PublishSpec, classes: list[str]) -> ArrowDataset | None:
    if spec.dataset is None:
        return None
    cache = NodeCache(spec.data.cache_dir, spec.data.cache_gb * 1e9)
    dataset = ArrowDataset(spec.dataset, spec.split, cache)
    if list(dataset.classes) != classes:
        raise JobError(spec.dataset, f"its classes are {_format_classes(dataset.classes)}, those of {spec.model} are "
                       f"{_format_classes(classes)}",
                       "give the dataset that the model was trained on, or leave `dataset` out")
    if len(dataset) == 0:
        raise JobError(spec.dataset, f"split '{spec.split}' has no images", "give a split that has some")
    return dataset


def _check_size(model: YOLO, size_px: int) -> None:
    if size_px % max(model.strides):
        raise JobError("image_size_px", f"{size_px} is not a multiple of the model's largest stride",
                       f"give a multiple of {max(model.strides)}")


def _checked_parity(
    spec: PublishSpec, trained: YOLO, folded: YOLO, dataset: ArrowDataset | None, size_px: int
) -> Parity:
    images, description = _parity_images(dataset, spec, size_px)
    difference = max_relative_difference(trained, folded, images)
    parity = Parity(difference, spec.parity_tolerance, len(images), description)
    print(f"publish: folded against trained: {difference:.1e} relative on {len(images)} images "
          f"({description}), tolerance {spec.parity_tolerance:.0e}")
    if not difference <= spec.parity_tolerance:  # also catches NaN
        raise JobError(spec.model, f"the folded model differs from the trained one by {difference:.1e}, more than "
                       f"parity_tolerance {spec.parity_tolerance:.0e}; nothing was registered",
                       "train in higher precision, or raise parity_tolerance if you can accept the difference")
    return parity


def _parity_images(dataset: ArrowDataset | None, spec: PublishSpec, size_px: int) -> tuple[Tensor, str]:
    """(n, 3, H, W) float images in [0, 1], and a description of them."""
    if dataset is None:
        noise = torch.rand(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
        return noise, "noise"
    batch = next(iter(evaluation_loader(dataset, size_px=size_px, batch_size=NUM_PARITY_IMAGES, rank=0, world_size=1)))
    return normalize(batch.images), f"{spec.dataset} {spec.split}"


@torch.inference_mode()
def max_relative_difference(trained: YOLO, folded: YOLO, images: Tensor) -> float:
    """Largest |difference| over the largest |value| of each output; NaN or infinite outputs count as infinite.

    The raw outputs of every level, the decoded boxes and the decoded scores are compared, each on its own
    scale. images: (n, 3, H, W).
    """
    worst = 0.0
    for image in images.split(1):
        for expected, actual in zip(_outputs(trained, image), _outputs(folded, image), strict=True):
            difference = ((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()
            worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


def _outputs(model: YOLO, images: Tensor) -> list[Tensor]:
    raw = model.eval().raw_outputs(images)
    decoded = model.decode(raw)
    return [*raw, decoded[..., :4], decoded[..., 4:]]


def _evaluate(folded: YOLO, dataset: ArrowDataset, size_px: int, spec: PublishSpec) -> tuple[dict[str, Any], Validation]:
    """COCO metrics of the folded model on the whole split, and what it detects there."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = evaluation_loader(dataset, size_px=size_px, batch_size=EVALUATION_BATCH_SIZE, rank=0, world_size=1)
    truths = (dataset.truth(index) for index in range(len(dataset)))
    evaluator = evaluate(folded.to(device), batches, truths, CocoEvaluator(list(dataset.classes)))
    metrics = evaluator.compute()
    print(f"publish: AP {_format_metric(metrics.ap)}, AP50 {_format_metric(metrics.ap50)} "
          f"on {len(dataset)} images ({spec.dataset} {spec.split})")
    state = evaluator.state()
    validation = Validation.of(state["detections"], state["num_detections"], len(dataset.classes))
    return metrics.to_dict() | {"dataset": spec.dataset, "split": spec.split,
                                "fingerprint": dataset.fingerprint}, validation


def _record(loaded: LoadedModel, size_px: int, metrics: dict[str, Any], parity: Parity) -> dict[str, Any]:
    return {
        "architecture": loaded.model.architecture.to_dict(),
        "num_classes": loaded.model.num_classes,
        "classes": loaded.classes,
        "image_size_px": size_px,
        "metrics": metrics,
        "training_metrics": loaded.record.get("metrics") or {},
        "dataset_fingerprint": loaded.record.get("dataset_fingerprint"),
        "spec": loaded.record.get("spec"),
        "parity": vars(parity),
        "source": loaded.source,
    }


def _megabytes(version: ModelVersion) -> float:
    return sum(file.num_bytes for file in version.files.values()) / 1e6


def _format_metric(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _format_classes(classes) -> str:
    shown = ", ".join(list(classes)[:10])
    return f"{shown} … ({len(classes)})" if len(classes) > 10 else shown
