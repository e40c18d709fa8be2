"""The images in which a model is most wrong: truth beside detections, as SVG over one small JPEG each.

D detections
"""

import base64
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa

from yolov7.evaluation.mistakes import FOUND, IGNORED, MISTAKES, RIGHT, JudgedImage, judged_images
from yolov7.images.sample import reduction

from ...data.reading.dataset import ArrowDataset
from ...errors import JobError
from ..rank_share import Share

NUM_PICTURES = 36
SIDE_PX = 320
QUALITY = 78
CHARACTER_PX = 7.5
"""About the width of a character beside a box."""
KIND_OF = {FOUND: "right", RIGHT: "right", IGNORED: "ignored", "missed": "missed", "false": "missed",
           "confused": "confused", "badly placed": "placed", "duplicate": "duplicate",
           "confused and badly placed": "confused"}
"""Verdict -> class of its box in the page's style."""


@dataclass(frozen=True)
class Gallery:
    """What is shown of images, and what was counted in those of one rank."""

    figures: Sequence[str]
    """HTML, the worst image first."""
    counts: Counter[str]
    """Mistakes by type."""
    num_images: int
    """Images that were looked at."""
    confidence: float
    """From which on a detection counts."""
    classes: Sequence[int] = ()
    """Those of which the figures hold a mistake."""


def gallery(dataset: ArrowDataset, share: Share, confidence: float, num_pictures: int = NUM_PICTURES) -> Gallery:
    """The worst images of a rank's share of ``dataset``; those that cannot be read are left out."""
    judged = list(judged_images(share.evaluator.state(), confidence))
    figures, labels = [], set()
    for image in chosen(judged, len(dataset.classes), num_pictures):
        try:
            figures.append(figure(dataset, int(share.order[image.position]), image))
            labels |= classes_of(image)
        except (JobError, OSError, pa.ArrowException):
            continue
    return Gallery(figures, sum((image.counts for image in judged), Counter()), len(judged), confidence, sorted(labels))


def chosen(judged: Sequence[JudgedImage], num_classes: int, most: int) -> list[JudgedImage]:
    """The worst images, the worst first: by F1, then by mistakes; up to half of them so that each class has some."""
    ranked = sorted((image for image in judged if image.counts), key=lambda image: (image.f1, -image.counts.total()))
    places: dict[int, None] = {}
    of_class: dict[int, list[int]] = {label: [] for label in range(num_classes)}
    for place, image in enumerate(ranked):
        for label in classes_of(image):
            of_class[label].append(place)
    for turn in range(max(map(len, of_class.values()), default=0)):
        for own in of_class.values():
            if turn < len(own) and len(places) < most // 2:
                places.setdefault(own[turn])
    for place in range(len(ranked)):
        if len(places) < most:
            places.setdefault(place)
    return [ranked[place] for place in sorted(places)]


def classes_of(image: JudgedImage) -> set[int]:
    """Classes that a mistake in the image is about."""
    missed = {int(label) for label, verdict in zip(image.truth_labels, image.truth_verdicts) if verdict == "missed"}
    wrong = {int(found[5]) for found, verdict in zip(image.detections, image.verdicts) if verdict in MISTAKES}
    mistaken = {int(image.truth_labels[partner]) for partner, verdict in zip(image.partners, image.verdicts)
                if verdict in MISTAKES and partner >= 0}
    return missed | wrong | mistaken


def pairs_of(image: JudgedImage, background: int) -> list[str]:
    """Cells of the confusion matrix that the image belongs to, as TRUE>FOUND; ``background`` is the last row."""
    found = {f"{background if partner < 0 else int(image.truth_labels[partner])}>{int(row[5])}"
             for row, verdict, partner in zip(image.detections, image.verdicts, image.partners) if verdict != IGNORED}
    missed = {f"{int(label)}>{background}" for label, verdict in zip(image.truth_labels, image.truth_verdicts)
              if verdict == "missed"}
    return sorted(found | missed)


def figure(dataset: ArrowDataset, index: int, image: JudgedImage) -> str:
    """One image, twice: with its objects, and with what was found. JobError or OSError if it cannot be read."""
    height, width = dataset.size_hw(index)
    scale = SIDE_PX / max(height, width)
    sample = dataset.read(index, reduction(scale))
    pixels = sample.image
    if max(pixels.shape[:2]) > SIDE_PX:
        pixels = cv2.resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    names, key = dataset.classes, f"image-{index}"
    truth = "".join(_box(box * scale, width * scale, names[label], verdict, f"{names[label]}: {verdict}") for box, label, verdict in zip(
        image.truth_boxes_xyxy, image.truth_labels.tolist(), image.truth_verdicts))
    found = "".join(_box(row[:4] * scale, width * scale, f"{names[int(row[5])]} {row[4]:.2f}", verdict,
                         f"{names[int(row[5])]} {row[4]:.2f}: {verdict}")
                    for row, verdict in zip(image.detections[::-1], image.verdicts[::-1]))
    data = base64.b64encode(jpeg).decode()
    size = f"viewBox='0 0 {width * scale:.0f} {height * scale:.0f}' role=img"
    pair = (f"<svg {size}><title>objects</title><image id='{key}' href='data:image/jpeg;base64,{data}' "
            f"width='{width * scale:.0f}' height='{height * scale:.0f}'/>{truth}</svg>"
            f"<svg {size}><title>detections</title><use href='#{key}'/>{found}</svg>")
    counts = ", ".join(f"{count} {kind}" for kind, count in image.counts.most_common())
    attributes = {"kinds": "|".join(image.counts), "classes": " ".join(map(str, sorted(classes_of(image)))),
                  "pairs": " ".join(pairs_of(image, len(names)))}
    data_set = " ".join(f"data-{name}='{html.escape(value, quote=True)}'" for name, value in attributes.items())
    return (f"<figure class='card case' {data_set}><div class=pair>{pair}</div><figcaption><b>{html.escape(counts)}</b> "
            f"{html.escape(sample.file_name)}</figcaption></figure>")


def _box(box_xyxy: np.ndarray, width: float, text: str, verdict: str, tip: str) -> str:
    """A box; its text is shown where something is wrong, above it, or below its upper edge at the image's."""
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    left = max(1.0, min(x1, width - CHARACTER_PX * len(text)))
    label = (f"<text x='{left:.1f}' y='{y1 - 3 if y1 > 13 else y1 + 11:.1f}'>{html.escape(text)}</text>"
             if verdict in MISTAKES else "")
    return (f"<g class='box {KIND_OF[verdict]}'><title>{html.escape(tip)}</title><rect x='{x1:.1f}' y='{y1:.1f}' "
            f"width='{max(0.0, x2 - x1):.1f}' height='{max(0.0, y2 - y1):.1f}'/>{label}</g>")
