"""What counts as a detection."""

from dataclasses import dataclass

from ..errors import JobError

MAX_DETECTIONS = 300
"""Most detections of one image."""


@dataclass(frozen=True)
class Options:
    """Thresholds of one image."""

    confidence: float = 0.25
    """Lower scores are left out."""
    iou: float = 0.45
    """Overlap at which the weaker of two detections of a class is left out."""
    max_detections: int = MAX_DETECTIONS
    multi_label: bool = False
    """Whether one box may stand for several classes."""
    class_agnostic: bool = False
    """Whether boxes suppress boxes of other classes too."""

    def __post_init__(self) -> None:
        for name, value in (("confidence", self.confidence), ("iou", self.iou)):
            if not 0 <= value <= 1:
                raise JobError(name, f"{value} is out of range", "give a number from 0 to 1")
        if self.max_detections < 1:
            raise JobError("max_detections", f"{self.max_detections} leaves nothing", "give at least 1")
