"""The objects in one image, and the ways in which people want them.

n objects · H W pixels
"""

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from yolov7.images.draw import draw_detections
from yolov7.images.sample import encode_image

from .. import storage
from ..errors import JobError

if TYPE_CHECKING:
    import pandas
    import PIL.Image
    import supervision

MIN_SIDE_PX = 480
"""Smaller pictures are enlarged when they are drawn, so that texts can be read."""


class Detection(NamedTuple):
    """One object."""

    box_xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the displayed image."""
    score: float
    label: int
    name: str


@dataclass(frozen=True, eq=False)
class Detections:
    """The n objects in one image, best first."""

    boxes_xyxy: np.ndarray
    """(n, 4) float32: left, top, right, bottom in pixels of the image as it is displayed."""
    scores: np.ndarray
    """(n,) float32, 0 to 1."""
    labels: np.ndarray
    """(n,) int64, index into `classes`."""
    classes: tuple[str, ...]
    """Names of all classes that the model knows."""
    size_hw: tuple[int, int]
    """Height and width of the displayed image."""
    source: str = ""
    """Where the image came from: path or URI, empty if it was given as bytes or pixels."""
    picture: Callable[[], np.ndarray] | None = field(default=None, repr=False)
    """Gives the image, (H, W, 3) uint8 RGB, read again where it was a file."""

    @property
    def names(self) -> list[str]:
        """Class name of each object."""
        return [self.classes[label] for label in self.labels.tolist()]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, label in zip(self.boxes_xyxy.tolist(), self.scores.tolist(), self.labels.tolist()):
            yield Detection(tuple(box), score, label, self.classes[label])

    def __getitem__(self, chosen: int | slice | np.ndarray | Sequence[int]) -> "Detections":
        """Those at an index, in a slice, or where a mask (n,) bool is true."""
        chosen = slice(chosen, chosen + 1 or None) if isinstance(chosen, int) else chosen
        return replace(self, boxes_xyxy=self.boxes_xyxy[chosen], scores=self.scores[chosen], labels=self.labels[chosen])

    def filter(self, confidence: float = 0.0, names: Collection[str] | None = None) -> "Detections":
        """Those with at least this score, of these classes; None: of all."""
        unknown = sorted(set(names or ()) - set(self.classes))
        if unknown:
            raise JobError("names", f"{', '.join(unknown)} is no class of the model",
                           f"its classes are {', '.join(self.classes)}")
        labels = [label for label, name in enumerate(self.classes) if names is None or name in names]
        return self[(self.scores >= confidence) & np.isin(self.labels, labels)]

    # --- other forms ------------------------------------------------------------------------------------

    def to_pandas(self) -> "pandas.DataFrame":
        """A row for each object: x1, y1, x2, y2 in pixels, score, label, name."""
        import pandas

        frame = pandas.DataFrame(self.boxes_xyxy, columns=["x1", "y1", "x2", "y2"])
        return frame.assign(score=self.scores, label=self.labels, name=self.names)

    def to_supervision(self) -> "supervision.Detections":
        """For the package `supervision`; JobError if it is not installed."""
        try:
            import supervision
        except ImportError as error:
            raise JobError("to_supervision", "the package supervision is not installed",
                           "pip install supervision") from error
        return supervision.Detections(xyxy=self.boxes_xyxy, confidence=self.scores, class_id=self.labels.astype(int),
                                      data={"class_name": np.array(self.names, dtype=str)})

    def to_coco(self, image_id: int | str = 0, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results: image_id, category_id (default: label + 1), bbox as x, y, width, height, score."""
        ids = category_ids or range(1, len(self.classes) + 1)
        return [{"image_id": image_id, "category_id": ids[found.label], "score": round(found.score, 6),
                 "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]}
                for found in self for x1, y1, x2, y2 in [found.box_xyxy]]

    # --- the picture ------------------------------------------------------------------------------------

    def plot(self) -> "PIL.Image.Image":
        """The image with its objects drawn, small ones enlarged; JobError if the image is not known."""
        import PIL.Image

        return PIL.Image.fromarray(self._drawn())

    def save(self, uri: str | PathLike) -> None:
        """Write the drawn image as .jpg, .png or .webp, on a disk or in S3."""
        path = str(uri)
        suffix = path[path.rfind("."):].lower()
        if suffix not in (".jpg", ".jpeg", ".png", ".webp"):
            raise JobError(path, "is no name of a picture", "let it end with .jpg, .png or .webp")
        storage.write_bytes(path, encode_image(self._drawn(), suffix))

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows."""
        if self.picture is None:
            return None
        content = io.BytesIO()
        self.plot().save(content, "PNG")
        return content.getvalue()

    def _drawn(self) -> np.ndarray:
        if self.picture is None:
            raise JobError("plot", "these detections do not know their image", "detect in it again")
        found = np.column_stack((self.boxes_xyxy, self.scores, self.labels))
        return draw_detections(self.picture(), found, self.classes, min_side_px=MIN_SIDE_PX)

    def __repr__(self) -> str:
        counts = {name: self.names.count(name) for name in dict.fromkeys(self.names)}
        found = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
        place = f" in {self.source}" if self.source else ""
        return f"<Detections{place}, {self.size_hw[1]} x {self.size_hw[0]} px: {found}>"
