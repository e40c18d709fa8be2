"""Boxes with their class and score drawn into images, and images laid out in a grid; OpenCV alone, no font files."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

#: Okabe and Ito's colours (RGB), distinguishable for colour-blind readers. More classes reuse them: the text tells.
PALETTE_RGB = (
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (240, 228, 66),
)
BACKGROUND = 114
FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_color(label: int) -> tuple[int, int, int]:
    """The RGB colour of a class."""
    return PALETTE_RGB[label % len(PALETTE_RGB)]


def draw_detections(
    image_rgb: NDArray, detections: Any, class_names: Sequence[str], max_detections: int = 100, min_side_px: int = 0
) -> NDArray:
    """A copy of the image (H, W, 3) uint8 RGB with detections (n, 6): x1, y1, x2, y2 in its pixels, score, class.

    The best ``max_detections`` are drawn, the best of them on top. Arrays and tensors on any device are accepted.
    An image whose longer side is under ``min_side_px`` is enlarged by an integer factor, so that texts are legible.
    """
    if hasattr(detections, "detach"):
        detections = detections.detach().cpu().float().numpy()
    detections = np.asarray(detections, float).reshape(-1, 6)
    given_px = max(image_rgb.shape[:2])
    image_rgb = enlarged(image_rgb, min_side_px)
    detections = detections * [*[max(image_rgb.shape[:2]) // given_px] * 4, 1, 1]
    best = np.argsort(-detections[:, 4], kind="stable")[:max_detections]
    texts = [f"{_class_name(class_names, int(label))} {score:.2f}" for score, label in detections[best, 4:]]
    return _draw(image_rgb, detections[best, :4], detections[best, 5].astype(int), texts)


def draw_truth(image_rgb: NDArray, boxes_xyxy: NDArray, labels: NDArray, class_names: Sequence[str]) -> NDArray:
    """A copy of the image with its true objects: boxes (n, 4) in its pixels, labels (n,)."""
    labels = np.asarray(labels, int).reshape(-1)
    texts = [_class_name(class_names, int(label)) for label in labels]
    return _draw(image_rgb, np.asarray(boxes_xyxy, float).reshape(-1, 4), labels, texts)


def enlarged(image_rgb: NDArray, min_side_px: int) -> NDArray:
    """The image (H, W, 3), its pixels repeated so often that the longer side is at least ``min_side_px``."""
    factor = max(1, -(-min_side_px // max(image_rgb.shape[:2])))
    return np.repeat(np.repeat(image_rgb, factor, axis=0), factor, axis=1)


def draw_grid(images_rgb: Sequence[NDArray], max_cell_px: int = 640) -> NDArray:
    """All images (H, W, 3) in one grid, as square as possible, in reading order; any sizes, none enlarged."""
    if not images_rgb:
        raise ValueError("images: none given; a grid needs one or more")
    cells = [_downscaled(image, max_cell_px) for image in images_rgb]
    height, width = max(cell.shape[0] for cell in cells), max(cell.shape[1] for cell in cells)
    num_columns = math.ceil(math.sqrt(len(cells)))
    num_rows = math.ceil(len(cells) / num_columns)
    grid = np.full((num_rows * height, num_columns * width, 3), BACKGROUND, np.uint8)
    for i, cell in enumerate(cells):
        top, left = i // num_columns * height, i % num_columns * width
        grid[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return grid


def _draw(image_rgb: NDArray, boxes_xyxy: NDArray, labels: NDArray, texts: Sequence[str]) -> NDArray:
    """Draw boxes given in order of importance, the first on top; frames before texts, so that none crosses one."""
    image = np.ascontiguousarray(image_rgb).copy()
    height, width = image.shape[:2]
    thickness = max(1, round(math.sqrt(height * width) / 320))
    drawable = np.isfinite(boxes_xyxy).all(axis=1).nonzero()[0][::-1]
    corners = np.clip(np.round(np.nan_to_num(boxes_xyxy)), 0, [width - 1, height - 1] * 2).astype(int)
    for i in drawable:
        x1, y1, x2, y2 = corners[i].tolist()
        cv2.rectangle(image, (x1, y1), (x2, y2), class_color(int(labels[i])), thickness, cv2.LINE_8)
    places = _text_places(corners[drawable], [_text_size(texts[i], thickness) for i in drawable], (height, width))
    for i, place in zip(drawable, places):
        _draw_text(image, texts[i], place, class_color(int(labels[i])), thickness)
    return image


def _text_size(text: str, thickness: int) -> tuple[int, int]:
    """Width and height in pixels of a text with its ground."""
    scale, stroke = _font(thickness)
    (width, height), baseline = cv2.getTextSize(text, FONT, scale, stroke)
    return width + 4, height + baseline + 2


def _font(thickness: int) -> tuple[float, int]:
    """Scale and stroke of a text that goes with frames of this thickness."""
    return 0.25 + 0.15 * thickness, max(1, round(thickness / 2))


def _text_places(corners: NDArray, sizes_wh: Sequence[tuple[int, int]], size_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Left and top of each text: of the places around its box the one that covers least of boxes and of other texts.

    ``corners`` (n, 4) are boxes in the image, the least important first; the more important ones choose first.
    """
    height, width = size_hw
    taken = np.zeros((0, 4))
    places: list[tuple[int, int]] = []
    for (x1, y1, x2, y2), (text_width, text_height) in zip(corners[::-1].tolist(), sizes_wh[::-1]):
        ends = (x1, x2 - text_width + 1)
        options = [(x, y) for y in (y1 - text_height, y2 + 1) for x in ends]
        options += [(x, y1) for x in (x2 + 1, x1 - text_width)] + [(x1, y1)]  # beside it, and at last within
        within = [(max(0, min(x, width - text_width)), max(0, min(y, height - text_height))) for x, y in options]
        areas = np.array([[x, y, x + text_width, y + text_height] for x, y in within], float)
        cost = _shared(areas, corners).sum(axis=1) + 3 * _shared(areas, taken).sum(axis=1)
        best = int(cost.argmin())
        places.append(within[best])
        taken = np.concatenate((taken, areas[best:best + 1]))
    return places[::-1]


def _shared(boxes: NDArray, others: NDArray) -> NDArray:
    """(n, m) pixels that boxes (n, 4) and (m, 4) share."""
    low, high = np.maximum(boxes[:, None, :2], others[None, :, :2]), np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


def _draw_text(image: NDArray, text: str, place: tuple[int, int], color: tuple[int, int, int], thickness: int) -> None:
    """A text on a ground of its class's colour, left and top at ``place``; never outside the image."""
    scale, stroke = _font(thickness)
    (left, top), (width, height) = place, _text_size(text, thickness)
    cv2.rectangle(image, (left, top), (left + width - 1, top + height), color, cv2.FILLED)
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    text_color = (0, 0, 0) if luminance > 95 else (255, 255, 255)
    (_, text_height), _ = cv2.getTextSize(text, FONT, scale, stroke)
    cv2.putText(image, text, (left + 2, top + text_height + 1), FONT, scale, text_color, stroke, cv2.LINE_AA)


def _class_name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if 0 <= label < len(class_names) else f"class {label}"


def _downscaled(image: NDArray, max_px: int) -> NDArray:
    ratio = max_px / max(image.shape[:2])
    if ratio >= 1:
        return image
    size_wh = (max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio)))
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
