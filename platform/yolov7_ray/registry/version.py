"""The immutable record of one registered model version."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import Corrupt

MODEL_FILE = "model.safetensors"
"""The folded weights, as `yolov7.checkpoints.weights.save_model` writes them."""


@dataclass(frozen=True)
class StoredFile:
    """Digest and size of a file of a version."""

    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class ModelVersion:
    """All metadata of one version: enough to load, verify and reproduce it."""

    name: str
    version: str
    """"1", "2", … in the order of their claims."""
    created_at: str
    """UTC, ISO 8601."""
    architecture: dict[str, Any]
    """`yolov7.architectures.family.Architecture.to_dict()`."""
    num_classes: int
    classes: list[str]
    image_size_px: int
    metrics: dict[str, Any]
    """COCO metrics measured on this exact artifact; empty if no dataset was given."""
    training_metrics: dict[str, Any]
    """What training reported for the checkpoint."""
    dataset_fingerprint: str | None
    """Fingerprint of the data that the model was trained on."""
    spec: dict[str, Any] | None
    """The train job."""
    parity: dict[str, Any]
    """Folded against trained outputs: max_relative_difference, tolerance, num_images, images."""
    source: str
    """Where the trained weights came from."""
    files: dict[str, StoredFile]
    """File name -> digest and size."""
    engines: list[dict[str, Any]] = field(default_factory=list)
    """What can run it, measured when it was published: `engines.folded.Compiled`; empty in older records."""

    @property
    def ref(self) -> str:
        """NAME:VERSION, which is immutable."""
        return f"{self.name}:{self.version}"

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "ModelVersion":
        """Raises Corrupt, naming `where`, if `data` is not such a record."""
        try:
            record = json.loads(data)
            files = {name: StoredFile(**file) for name, file in record.pop("files").items()}
            return cls(**record, files=files)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Corrupt(where, f"is no record of a model version ({error})", "publish the model again") from error
