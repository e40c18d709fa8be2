"""What the paper publishes of detectors, its own and others' (arXiv:2207.02696, Tables 1 and 2), to compare with.

Figures as printed, not measured here, but for the misprinted unit of YOLOR-W6's parameters. Table 9, which lists other
kinds of detectors, is not among our facts and left out.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row: `own` is the name of our architecture, where there is one; AP in percent on COCO val2017."""

    model: str
    own: str | None
    image_size_px: int
    parameters_m: float
    flops_g: float
    ap: float
    ap50: float | None = None
    ap75: float | None = None
    fps: int | None = None
    """Images per second on a V100, one at a time."""


TABLE_1 = (
    Published("YOLOv4", None, 640, 64.4, 142.8, 49.7, 68.2, 54.3),
    Published("YOLOR-u5 (r6.1)", None, 640, 46.5, 109.1, 50.2, 68.7, 54.6),
    Published("YOLOv4-CSP", "yolov4-csp", 640, 52.9, 120.4, 50.3, 68.6, 54.9),
    Published("YOLOR-CSP", "yolor-csp", 640, 52.9, 120.4, 50.8, 69.5, 55.3),
    Published("YOLOv7", "yolov7", 640, 36.9, 104.7, 51.2, 69.7, 55.5),
    Published("YOLOR-CSP-X", "yolor-csp-x", 640, 96.9, 226.8, 52.7, 71.3, 57.4),
    Published("YOLOv7-X", "yolov7-x", 640, 71.3, 189.9, 52.9, 71.1, 57.5),
    Published("YOLOv4-tiny", None, 416, 6.1, 6.9, 24.9, 42.1, 25.7),
    Published("YOLOv7-tiny", "yolov7-tiny", 416, 6.2, 5.8, 35.2, 52.8, 37.3),
    Published("YOLOv4-tiny-3l", None, 320, 8.7, 5.2, 30.8, 47.3, 32.2),
    Published("YOLOv7-tiny", "yolov7-tiny", 320, 6.2, 3.5, 30.8, 47.3, 32.2),
    Published("YOLOR-E6", "yolor-e6", 1280, 115.8, 683.2, 55.7, 73.2, 60.7),
    Published("YOLOv7-E6", "yolov7-e6", 1280, 97.2, 515.2, 55.9, 73.5, 61.1),
    Published("YOLOR-D6", "yolor-d6", 1280, 151.7, 935.6, 56.1, 73.9, 61.2),
    Published("YOLOv7-D6", "yolov7-d6", 1280, 154.7, 806.8, 56.3, 73.8, 61.4),
    Published("YOLOv7-E6E", "yolov7-e6e", 1280, 151.7, 843.2, 56.8, 74.4, 62.1),
)
"""Baselines."""

TABLE_2 = (
    Published("YOLOX-S", None, 640, 9.0, 26.8, 40.5, None, None, 102),
    Published("YOLOX-M", None, 640, 25.3, 73.8, 46.9, None, None, 81),
    Published("YOLOX-L", None, 640, 54.2, 155.6, 49.7, None, None, 69),
    Published("YOLOX-X", None, 640, 99.1, 281.9, 51.1, None, None, 58),
    Published("PPYOLOE-S", None, 640, 7.9, 17.4, 42.7, None, None, 208),
    Published("PPYOLOE-M", None, 640, 23.4, 49.9, 48.6, None, None, 123),
    Published("PPYOLOE-L", None, 640, 52.2, 110.1, 50.9, None, None, 78),
    Published("PPYOLOE-X", None, 640, 98.4, 206.6, 51.9, None, None, 45),
    Published("YOLOv5-N (r6.1)", None, 640, 1.9, 4.5, 28.0, None, None, 159),
    Published("YOLOv5-S (r6.1)", None, 640, 7.2, 16.5, 37.4, None, None, 156),
    Published("YOLOv5-M (r6.1)", None, 640, 21.2, 49.0, 45.4, None, None, 122),
    Published("YOLOv5-L (r6.1)", None, 640, 46.5, 109.1, 49.0, None, None, 99),
    Published("YOLOv5-X (r6.1)", None, 640, 86.7, 205.7, 50.7, None, None, 83),
    Published("YOLOR-CSP", "yolor-csp", 640, 52.9, 120.4, 50.8, None, None, 106),
    Published("YOLOR-CSP-X", "yolor-csp-x", 640, 96.9, 226.8, 52.7, None, None, 87),
    Published("YOLOv7-tiny-SiLU", "yolov7-tiny-silu", 640, 6.2, 13.8, 38.7, None, None, 286),
    Published("YOLOv7", "yolov7", 640, 36.9, 104.7, 51.2, None, None, 161),
    Published("YOLOv7-X", "yolov7-x", 640, 71.3, 189.9, 52.9, None, None, 114),
    Published("YOLOv5-N6 (r6.1)", None, 1280, 3.2, 18.4, 36.0, None, None, 123),
    Published("YOLOv5-S6 (r6.1)", None, 1280, 12.6, 67.2, 44.8, None, None, 122),
    Published("YOLOv5-M6 (r6.1)", None, 1280, 35.7, 200.0, 51.3, None, None, 90),
    Published("YOLOv5-L6 (r6.1)", None, 1280, 76.8, 445.6, 53.7, None, None, 63),
    Published("YOLOv5-X6 (r6.1)", None, 1280, 140.7, 839.2, 55.0, None, None, 38),
    Published("YOLOR-P6", "yolor-p6", 1280, 37.2, 325.6, 53.5, None, None, 76),
    Published("YOLOR-W6", "yolor-w6", 1280, 79.8, 453.2, 54.8, None, None, 66),
    Published("YOLOR-E6", "yolor-e6", 1280, 115.8, 683.2, 55.7, None, None, 45),
    Published("YOLOR-D6", "yolor-d6", 1280, 151.7, 935.6, 56.1, None, None, 34),
    Published("YOLOv7-W6", "yolov7-w6", 1280, 70.4, 360.0, 54.6, None, None, 84),
    Published("YOLOv7-E6", "yolov7-e6", 1280, 97.2, 515.2, 55.9, None, None, 56),
    Published("YOLOv7-D6", "yolov7-d6", 1280, 154.7, 806.8, 56.3, None, None, 44),
    Published("YOLOv7-E6E", "yolov7-e6e", 1280, 151.7, 843.2, 56.8, None, None, 36),
)
"""Real-time detectors; their AP50 and AP75 are published on test-dev alone, and not repeated here."""

PUBLISHED = {"Table 1: baselines": TABLE_1, "Table 2: real-time detectors": TABLE_2}


def neighbours(parameters_m: float, image_size_px: int, count: int = 3) -> list[Published]:
    """Up to ``count`` models below and above so many millions of parameters, smallest first; of those that are published
    at several image sizes, the row at the size nearest to ``image_size_px``."""
    nearest: dict[str, Published] = {}
    for row in (row for rows in PUBLISHED.values() for row in rows):
        held = nearest.get(row.model)
        if held is None or abs(row.image_size_px - image_size_px) < abs(held.image_size_px - image_size_px):
            nearest[row.model] = row
    ordered = sorted(nearest.values(), key=lambda row: row.parameters_m)
    first = sum(row.parameters_m <= parameters_m for row in ordered)
    return ordered[max(0, first - count):first + count]
