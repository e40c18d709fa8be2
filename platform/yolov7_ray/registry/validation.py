"""What a version detects on the split that it was measured on: what an endpoint compares its answers with.

C classes · S intervals of score
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import batched_nms

from .. import storage
from ..errors import Corrupt, JobError
from .registry import Registry

VALIDATION_FILE = "validation.json"
NUM_SCORES = 20
"""S: intervals of 0.05."""
LEAST_SCORE = 0.25
"""Lower scores are not counted: an endpoint's usual threshold."""
IOU = 0.45


@dataclass(frozen=True, eq=False)
class Validation:
    """Detections of a split."""

    num_images: int
    num_empty: int
    """Images without a detection."""
    counts: np.ndarray
    """(C, S) detections by class and score."""

    @classmethod
    def of(cls, detections: np.ndarray, num_detections: Sequence[int], num_classes: int) -> "Validation":
        """Of n images' detections (d, 6), one image after another, as an evaluation has them: with low scores, several
        labels for a box, and a looser suppression than an endpoint's."""
        kept = [_as_served(part) for part in np.split(detections, np.cumsum(num_detections)[:-1])]
        counts = sum((count(part, num_classes) for part in kept), np.zeros((num_classes, NUM_SCORES), np.int64))
        return cls(len(kept), sum(not len(part) for part in kept), counts)

    def to_json(self) -> bytes:
        """The file of a version."""
        return (json.dumps({"num_images": self.num_images, "num_empty": self.num_empty,
                            "counts": self.counts.tolist()}) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Validation":
        """Corrupt, naming `where`, if `data` is no such file."""
        try:
            record = json.loads(data)
            counts = np.array(record["counts"], np.int64).reshape(-1, NUM_SCORES)
            return cls(int(record["num_images"]), int(record["num_empty"]), counts)
        except (ValueError, TypeError, KeyError) as error:
            raise Corrupt(where, f"tells nothing of a validation ({error})", "publish the model again") from error


def load_validation(registry: str, ref: str) -> Validation | None:
    """That of NAME:VERSION; None if the version was published without a dataset, or cannot be read."""
    try:
        known = Registry(registry)
        version = known.resolve(ref)
        if VALIDATION_FILE not in version.files:
            return None
        uri = known.file_uri(version, VALIDATION_FILE)
        return Validation.from_json(storage.read_bytes(uri, version.files[VALIDATION_FILE].sha256), uri)
    except JobError:
        return None


def count(detections: np.ndarray, num_classes: int) -> np.ndarray:
    """(C, S) how often each class was detected with each score, of detections (d, 6)."""
    counts = np.zeros((num_classes, NUM_SCORES), np.int64)
    scores = np.minimum((detections[:, 4] * NUM_SCORES + 1e-6).astype(int), NUM_SCORES - 1)
    np.add.at(counts, (detections[:, 5].astype(int), scores), 1)
    return counts


def _as_served(detections: np.ndarray) -> np.ndarray:
    """One image's detections as an endpoint gives them: one label for a box, those that overlap suppressed."""
    likely = detections[detections[:, 4] >= LEAST_SCORE]
    likely = likely[np.argsort(-likely[:, 4], kind="stable")]
    _, best = np.unique(likely[:, :4], axis=0, return_index=True)
    found = torch.as_tensor(likely[np.sort(best)])
    return found[batched_nms(found[:, :4], found[:, 4], found[:, 5], IOU)].numpy()
