"""Resolves a reference to a model, and loads it: a run, a checkpoint, a file, or a registry name."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolov7.checkpoints import weights
from yolov7.model.detector import YOLO

from .. import storage
from ..engines.folded import ONNX_FILES, Compiled
from ..errors import Corrupt, JobError, NotFound
from .registry import REF, Registry
from .version import MODEL_FILE, ModelVersion

EMA_FILE = "ema.safetensors"
"""The weights of a checkpoint that are used: the moving average."""


@dataclass(frozen=True)
class Artifact:
    """A file of a version beside its weights."""

    uri: str
    sha256: str

    def read(self) -> bytes:
        """Its bytes; Corrupt if they are not those that were published."""
        data = storage.read_bytes(self.uri)
        if storage.digest(data) != self.sha256:
            raise Corrupt(self.uri, "is not what was published: its digest differs", "publish the model again")
        return data


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory."""

    model: YOLO
    """In evaluation mode, float32, on the CPU; folded if it came from the registry."""
    classes: list[str]
    image_size_px: int
    """Side of the square images that it was trained on."""
    source: str
    """The exact model that was loaded: NAME:VERSION or a URI."""
    record: dict[str, Any]
    """Metadata of the weights: spec, metrics, dataset_fingerprint; a version's whole record."""
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    """Files for engines by name; of published versions."""
    compiled: tuple[Compiled, ...] = ()
    """What publishing found about engines."""


@dataclass(frozen=True)
class ModelSource:
    """One exact model file; NAME@ALIAS or a run's best checkpoint as resolved at lookup."""

    ref: str
    """NAME:VERSION or a URI."""
    uri: str
    """The .safetensors file."""
    sha256: str | None = None
    """Verified if known."""
    image_size_px: int | None = None
    """As a record tells that is not the file's own; None: as the file tells."""
    record: dict[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    compiled: tuple[Compiled, ...] = ()

    def load(self) -> LoadedModel:
        """Read, verify and build the model. JobError if the file is missing, damaged or no model."""
        with tempfile.TemporaryDirectory(prefix="yolov7-model-") as directory:
            path = Path(directory) / MODEL_FILE
            storage.download(self.uri, path, sha256=self.sha256)
            try:
                model, classes = weights.load_model(path)
                size_px = self.image_size_px or weights.trained_image_size_px(path) or self._recorded_image_size_px()
            except (ValueError, KeyError, TypeError, RuntimeError) as error:
                problem = str(error).replace(str(path), "the file")
                raise Corrupt(self.uri, f"cannot be loaded as a model: {problem}",
                              "give a file that training or publishing wrote") from error
        model = model.float().eval()
        return LoadedModel(model, list(classes), size_px or model.architecture.default_image_size_px, self.ref,
                           self.record, self.artifacts, self.compiled)

    def _recorded_image_size_px(self) -> int | None:
        """The image size by a record beside the file: files of version 0.1 do not tell their own."""
        records = (_read_if_exists(storage.join(_parent(self.uri), name)) for name in weights.RECORDS)
        return next(filter(None, map(weights.recorded_image_size_px, records)), None)


def load_model(ref: str, registry: str | None = None) -> LoadedModel:
    """Look a model up and load it."""
    return locate(ref, registry).load()


def locate(ref: str, registry: str | None = None) -> ModelSource:
    """Resolve `ref` to the exact file that it refers to now.

    ref: URI of a run (its best checkpoint), of a checkpoint or of a .safetensors file; or NAME (the newest
    version), NAME@ALIAS, NAME:VERSION of `registry`. JobError names what is missing and what is available.
    """
    ref = ref.rstrip("/")
    if ref.endswith(".safetensors"):
        if not storage.exists(ref):
            raise NotFound(ref, "model file does not exist", "check the path, or train and publish a model first")
        return ModelSource(ref=ref, uri=ref)
    if REF.fullmatch(ref) and (registry is not None or not storage.exists(ref)):
        if registry is None:
            raise JobError(ref, "names a registered model, but no registry is given",
                           "set `registry:` to its URI, or give the URI of a run, checkpoint or .safetensors file")
        return _registered(ref, Registry(registry))
    if storage.exists(storage.join(ref, EMA_FILE)):
        return _checkpoint(ref, _read_if_exists(storage.join(_parent(ref), "results.json")))
    results = _read_if_exists(storage.join(ref, "results.json"))
    if not results.get("best_checkpoint"):
        raise NotFound(ref, "holds no trained model: neither results.json of a run nor ema.safetensors of a checkpoint",
                       "give a finished train run, a checkpoint directory, a .safetensors file, or NAME@ALIAS "
                       "with `registry:`")
    return _checkpoint(storage.join(ref, results["best_checkpoint"]), results)


def _registered(ref: str, registry: Registry) -> ModelSource:
    version = registry.resolve(ref)
    file = version.files.get(MODEL_FILE)
    if file is None:
        raise Corrupt(version.ref, f"its record names no {MODEL_FILE}", "publish the model again")
    return ModelSource(ref=version.ref, uri=registry.file_uri(version, MODEL_FILE), sha256=file.sha256,
                       image_size_px=version.image_size_px,
                       record={"spec": version.spec, "metrics": version.metrics or version.training_metrics,
                               "dataset_fingerprint": version.dataset_fingerprint},
                       artifacts={name: Artifact(storage.absolute(registry.file_uri(version, name)), stored.sha256)
                                  for name, stored in version.files.items() if name in ONNX_FILES.values()},
                       compiled=_compiled(version))


def _compiled(version: ModelVersion) -> tuple[Compiled, ...]:
    try:
        return tuple(Compiled(**found) for found in version.engines)
    except TypeError as error:
        raise Corrupt(version.ref, f"its record of engines is none ({error})", "publish the model again") from error


def _checkpoint(uri: str, results: dict[str, Any]) -> ModelSource:
    if not storage.exists(storage.join(uri, EMA_FILE)):
        raise NotFound(uri, f"checkpoint has no {EMA_FILE}", "it was removed or never completed; give another one")
    spec = _read_if_exists(storage.join(uri, "spec.json"))
    return ModelSource(ref=uri, uri=storage.join(uri, EMA_FILE),
                       image_size_px=spec.get("data", {}).get("image_size_px"),
                       record={"spec": spec or None, "metrics": _read_if_exists(storage.join(uri, "metrics.json")),
                               "dataset_fingerprint": results.get("dataset_fingerprint")})


def _read_if_exists(uri: str) -> dict[str, Any]:
    try:
        return storage.read_json(uri)
    except NotFound:
        return {}


def _parent(uri: str) -> str:
    return uri.rpartition("/")[0] or "."
