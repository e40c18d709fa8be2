"""Geometry of boxes against goldens, definitions and finite differences."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7.criterion import boxes

GOLDENS = json.loads((Path(__file__).parents[2] / "goldens" / "boxes.json").read_text())
A = torch.tensor(GOLDENS["boxes1_xywh"])
B = torch.tensor(GOLDENS["boxes2_xywh"])


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_overlap_equals_golden(kind):
    torch.testing.assert_close(
        boxes.bbox_iou(A, B, kind), torch.tensor(GOLDENS[kind]), rtol=1e-5, atol=1e-6
    )


def test_ciou_gradient_equals_golden():
    a = A.clone().requires_grad_()
    boxes.bbox_iou(a, B, "ciou").sum().backward()
    torch.testing.assert_close(
        a.grad, torch.tensor(GOLDENS["ciou_grad_boxes1"]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["iou", "giou", "diou"])
def test_gradient_equals_finite_differences(kind):
    a, b = A.double()[:6].requires_grad_(), B.double()[:6].requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: boxes.bbox_iou(x, y, kind), (a, b))


def test_ciou_holds_its_trade_off_constant():
    """The whole gradient is that of diou - alpha v with alpha frozen (Zheng et al. 2020, eq. 12)."""
    a = A.double().requires_grad_()
    (full,) = torch.autograd.grad(boxes.bbox_iou(a, B.double(), "ciou").sum(), a)
    (diou,) = torch.autograd.grad(boxes.bbox_iou(a, B.double(), "diou").sum(), a)
    torch.testing.assert_close(full[:, :2], diou[:, :2])
    assert not torch.allclose(full[:, 2:], diou[:, 2:])


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'siou' is unknown; choose iou, giou, diou or ciou"):
        boxes.bbox_iou(A, B, "siou")


def test_matrix_holds_every_pair():
    a, b = boxes.cxcywh_to_xyxy(A[:5]), boxes.cxcywh_to_xyxy(B[:7])
    matrix = boxes.box_iou_matrix(a, b)
    pairs = [[boxes.bbox_iou(A[i], B[j]) for j in range(7)] for i in range(5)]
    torch.testing.assert_close(matrix, torch.tensor(pairs), rtol=1e-5, atol=1e-6)
    assert boxes.box_iou_matrix(a[:0], b).shape == (0, 7)


def test_overlap_of_empty_boxes_is_zero():
    empty = torch.zeros(1, 4)
    assert boxes.box_iou_matrix(empty, empty).item() == 0
    for kind in ("iou", "giou", "diou", "ciou"):
        box = torch.zeros(1, 4, requires_grad=True)
        overlap = boxes.bbox_iou(box, torch.tensor([[5.0, 5.0, 2.0, 2.0]]), kind)
        overlap.sum().backward()
        assert overlap.isfinite().all() and box.grad.isfinite().all()


def test_clip_moves_corners_into_the_image():
    clipped = boxes.clip_boxes(torch.tensor([[-5.0, -1.0, 50.0, 40.0], [1, 2, 3, 4]]), (30, 20))
    assert clipped.tolist() == [[0, 0, 20, 30], [1, 2, 3, 4]]


coordinate = st.floats(0, 1280, width=32)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=8))
def test_formats_round_trip(rows):
    cxcywh = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    there_and_back = boxes.xyxy_to_cxcywh(boxes.cxcywh_to_xyxy(cxcywh))
    torch.testing.assert_close(there_and_back, cxcywh, rtol=1e-12, atol=1e-9)
