"""Predictions → detections: confidence threshold and non-maximum suppression.

Shape letters: B images · N predictions · C classes · R rows (predictions above the threshold) · K candidates
(pairs of row and class) · n detections.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

#: Rows whose candidates are tried first; nearly always they already fill ``max_detections``.
NUM_FIRST_ROWS = 1024
#: Candidates compared at once with each other and with the detections found before them.
CHUNK = 1024
#: Coordinate offset between two classes, and the largest coordinate at which float32 resolves 1/32 px.
CLASS_OFFSET_PX = 4096
MAX_FLOAT32_PX = 2**19


@torch.no_grad()
def postprocess(
    predictions: Tensor,
    confidence_threshold: float = 0.001,
    iou_threshold: float = 0.65,
    multi_label: bool = True,
    class_agnostic: bool = False,
    max_detections: int = 300,
    max_candidates: int = 30_000,
) -> list[Tensor]:
    """Keep the best boxes of every image, without their near duplicates.

    predictions: (B, N, 5+C) as the model decodes them in eval mode, any float dtype: cx, cy, w, h in
    pixels, objectness, class probabilities. Returns B tensors (n, 6) float32 on the same device, best
    score first: x1, y1, x2, y2 in pixels of the network's input, score, class.

    A score is objectness times class probability (objectness alone where there is one class) and counts
    when greater than ``confidence_threshold``. With ``multi_label`` one box may be detected as several classes.
    Boxes of different classes suppress each other only if ``class_agnostic``. Equal scores keep the order
    of the predictions. A prediction that contains NaN or infinity is dropped.
    """
    if predictions.ndim != 3 or predictions.shape[2] < 6:
        shape = tuple(predictions.shape)
        raise ValueError(f"predictions: shape {shape} does not fit; expected (images, boxes, 5 + classes)")
    for name, value in (("confidence_threshold", confidence_threshold), ("iou_threshold", iou_threshold)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}: {value} is out of range; choose from 0 to 1")
    detections = []
    for image_predictions in predictions:
        boxes_xyxy, scores, labels = _score_boxes(image_predictions, confidence_threshold, multi_label)
        found = torch.zeros((0, 6), device=predictions.device)
        for score_threshold in _score_thresholds(scores, confidence_threshold):
            candidates = _candidates(boxes_xyxy, scores, labels, score_threshold, max_candidates)
            found = candidates[_suppress(candidates, iou_threshold, class_agnostic, max_detections)]
            if len(found) == max_detections:
                break
        detections.append(found)
    return detections


def _score_boxes(predictions: Tensor, confidence_threshold: float, multi_label: bool) -> tuple[Tensor, Tensor, Tensor]:
    """From (N, 5+C): boxes (R, 4), scores (R, S) and classes (R, S); S is C, or 1 if only the best class counts."""
    predictions = predictions[predictions[:, 4].float() > confidence_threshold].float()
    # A sum is finite exactly if its terms are (none comes near float32's limit): one cheap pass.
    predictions = predictions[predictions.sum(dim=1).isfinite()]
    center_xy, half_wh = predictions[:, :2], predictions[:, 2:4] / 2
    boxes_xyxy = torch.cat((center_xy - half_wh, center_xy + half_wh), dim=1)
    objectness, probabilities = predictions[:, 4:5], predictions[:, 5:]
    if probabilities.shape[1] == 1:
        return boxes_xyxy, objectness, torch.zeros_like(objectness)
    scores = objectness * probabilities
    if multi_label:
        classes = torch.arange(scores.shape[1], device=scores.device, dtype=scores.dtype)
        return boxes_xyxy, scores, classes.expand_as(scores)
    best_scores, best_classes = scores.max(dim=1, keepdim=True)
    return boxes_xyxy, best_scores, best_classes.to(scores.dtype)


def _score_thresholds(scores: Tensor, confidence_threshold: float) -> Iterator[float]:
    """Thresholds to try, the highest first; the last is ``confidence_threshold`` itself.

    Suppression runs from the best score down, so its result for the candidates above any threshold does not
    depend on those below. If they suffice, hundreds of thousands of weak ones are never processed.
    """
    if len(scores) > NUM_FIRST_ROWS:
        score_threshold = scores.amax(dim=1).topk(NUM_FIRST_ROWS).values[-1].item()
        if score_threshold > confidence_threshold:
            yield score_threshold
    yield confidence_threshold


def _candidates(
    boxes_xyxy: Tensor, scores: Tensor, labels: Tensor, score_threshold: float, max_candidates: int
) -> Tensor:
    """Detections (K, 6) before suppression: the best above ``score_threshold``, best first, ties in row order."""
    above = (scores.amax(dim=1) > score_threshold).nonzero()[:, 0]
    rows, columns = (scores[above] > score_threshold).nonzero(as_tuple=True)
    rows = above[rows]
    values = scores[rows, columns]
    if len(values) > max_candidates:
        keep = values >= values.topk(max_candidates).values[-1]
        rows, columns, values = rows[keep], columns[keep], values[keep]
    values, order = values.sort(descending=True, stable=True)
    order = order[:max_candidates]
    rows, columns, values = rows[order], columns[order], values[:max_candidates]
    return torch.cat((boxes_xyxy[rows], values[:, None], labels[rows, columns][:, None]), dim=1)


def _suppress(candidates: Tensor, iou_threshold: float, class_agnostic: bool, max_detections: int) -> Tensor:
    """Indices of the best ``max_detections`` of the sorted candidates (K, 6) that survive non-maximum suppression."""
    from torchvision.ops import nms  # local: importing torchvision takes longer than importing torch

    boxes_xyxy = candidates[:, :4] if class_agnostic or not len(candidates) else _offset_by_class(candidates)
    kept = torch.zeros(0, dtype=torch.int64, device=candidates.device)
    for chunk in torch.arange(len(candidates), device=candidates.device).split(CHUNK):
        pool = torch.cat((kept, chunk))
        rank_scores = -pool.to(boxes_xyxy.dtype)
        kept = pool[nms(boxes_xyxy[pool], rank_scores, iou_threshold)][:max_detections]
        if len(kept) == max_detections:
            break
    return kept


def _offset_by_class(candidates: Tensor) -> Tensor:
    """Boxes (K, 4) of candidates (K, 6), each class shifted by its own offset so that classes never overlap.

    The official offset is 4096 px and float32 rounds boxes of the eightieth class to 1/32 px, which decides
    close cases: kept, so that results agree. Larger boxes get a larger offset, and many classes get float64.
    """
    boxes_xyxy, classes = candidates[:, :4], candidates[:, 5:]
    offset_px = max(CLASS_OFFSET_PX, (boxes_xyxy.max() - boxes_xyxy.min()).item() + 1)
    if offset_px * (classes.max().item() + 1) > MAX_FLOAT32_PX:
        boxes_xyxy, classes = boxes_xyxy.double(), classes.double()
    return boxes_xyxy + classes * offset_px
