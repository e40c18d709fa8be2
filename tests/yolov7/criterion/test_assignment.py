"""Assignment against a slow formulation, one image and one target at a time."""

import math

import pytest
import torch
import torch.nn.functional as F

from yolov7.criterion.assignment import COARSE_REACH, FINE_REACH, assign_ota, classification_costs, match_anchors
from yolov7.criterion.boxes import box_iou_matrix, cxcywh_to_xyxy

ANCHORS_PX = torch.tensor([[[12.0, 16], [19, 36], [40, 28]], [[36, 75], [76, 55], [72, 146]]])
STRIDES = (8, 16)
NUM_CLASSES = 5


def make_targets(num_images, num_targets, size_px=128, seed=0):
    """Targets (N, 6) in pixels, in no order of images."""
    rng = torch.Generator().manual_seed(seed)
    uniform = torch.rand(num_targets, 6, generator=rng)
    image, label = (uniform[:, 0] * num_images).floor(), (uniform[:, 1] * NUM_CLASSES).floor()
    wh = torch.exp(uniform[:, 4:] * 2.5 + 2)
    return torch.cat((image[:, None], label[:, None], uniform[:, 2:4] * size_px, wh), dim=1)


def match(targets, num_images, *reaches, size_px=128):
    grids = [(size_px // s, size_px // s) for s in STRIDES]
    return match_anchors(
        targets, ANCHORS_PX, STRIDES, grids, num_images, 4.0, reaches or (FINE_REACH,)
    )


def proposals(candidates):
    fields = ("output", "image", "anchor", "y", "x", "target")
    return list(zip(*(getattr(candidates, f).tolist() for f in fields), strict=True))


def slow_proposals(targets, reach, size_px=128):
    found = []
    for level, stride in enumerate(STRIDES):
        for n, (image, _, cx, cy, w, h) in enumerate(targets.tolist()):
            for a, (aw, ah) in enumerate(ANCHORS_PX[level].tolist()):
                if max(w / aw, aw / w, h / ah, ah / h) >= 4:
                    continue
                gx, gy, cells = cx / stride, cy / stride, size_px // stride
                spots = [(math.floor(gx), math.floor(gy))]
                if gx % 1 < reach and gx > 1:
                    spots.append((math.floor(gx - reach), math.floor(gy)))
                if gy % 1 < reach and gy > 1:
                    spots.append((math.floor(gx), math.floor(gy - reach)))
                if (cells - gx) % 1 < reach and cells - gx > 1:
                    spots.append((math.floor(gx + reach), math.floor(gy)))
                if (cells - gy) % 1 < reach and cells - gy > 1:
                    spots.append((math.floor(gx), math.floor(gy + reach)))
                found += [(level, int(image), a, y, x, n) for x, y in spots]
    return found


@pytest.mark.parametrize("reach", [FINE_REACH, COARSE_REACH])
def test_matching_equals_slow_formulation(reach):
    targets = make_targets(3, 40)
    assert sorted(proposals(match(targets, 3, reach))) == sorted(slow_proposals(targets, reach))


def test_candidates_know_their_image_and_their_twins():
    candidates = match(make_targets(4, 60), 4)
    rows = proposals(candidates)
    for image, members in enumerate(candidates.table[:, 0].tolist()):
        expected = [i for i, row in enumerate(rows) if row[1] == image]
        assert sorted(m for m in members if m >= 0) == expected
    assert torch.equal(candidates.table.flatten()[candidates.slot], torch.arange(len(rows)))
    twins = {(row[:5], cell) for row, cell in zip(rows, candidates.cell.tolist(), strict=True)}
    cells = candidates.cell.unique().numel()
    assert len({row for row, _ in twins}) == len(twins) == cells < len(rows)
    assert sum(candidates.num_per_output) == len(rows)


@pytest.mark.parametrize("centre", [(0, 0), (128, 128), (64, 64), (127.99, 0.01), (8, 120)])
@pytest.mark.parametrize("reach", [FINE_REACH, COARSE_REACH])
def test_border_targets_stay_on_the_grid(centre, reach):
    candidates = match(torch.tensor([[0, 0, *centre, 30.0, 30.0]]), 1, reach)
    last = torch.tensor([128 // s - 1 for s in STRIDES])[candidates.output]
    assert len(candidates.x)
    for index in (candidates.x, candidates.y):
        assert (index >= 0).all() and (index <= last).all()


def test_degenerate_and_far_too_small_targets_match_nothing():
    targets = torch.tensor([[0, 0, 64.0, 64, 0, 20], [0, 1, 64, 64, 1, 1]])
    candidates = match(targets, 1)
    assert len(candidates.target) == 0
    assert len(assign_ota(candidates, torch.zeros(0, 10), targets, 10)) == 0


def slow_ota(candidates, cells, targets, num_ious):
    """Pairs of (candidate, target): SimOTA read aloud, with probabilities."""
    boxes = cxcywh_to_xyxy(candidates.decode(cells))
    pairs = set()
    for image in targets[:, 0].unique().tolist():
        here = (targets[:, 0] == image).nonzero().flatten()
        members = (candidates.image == image).nonzero().flatten()
        if not len(members):
            continue
        iou = box_iou_matrix(cxcywh_to_xyxy(targets[here, 2:]), boxes[members])
        y = (cells[members, 5:].sigmoid() * cells[members, 4:5].sigmoid()).sqrt()
        one_hot = F.one_hot(targets[here, 1].long(), NUM_CLASSES).to(y.dtype)
        cost = torch.stack(
            [F.binary_cross_entropy(y, row.expand_as(y), reduction="none").sum(1) for row in one_hot]
        ) - 3 * (iou + 1e-8).log()
        claims = torch.zeros_like(cost, dtype=torch.bool)
        for row in range(len(here)):
            k = max(1, int(iou[row].sort(descending=True).values[:num_ious].sum()))
            claims[row, cost[row].sort().indices[:k]] = True
        for column, candidate in enumerate(members.tolist()):
            if claims[:, column].sum() > 1:
                pairs.add((candidate, here[cost[:, column].argmin()].item()))
            elif claims[:, column].any():
                pairs.add((candidate, here[claims[:, column]].item()))
    return pairs


@pytest.mark.parametrize("num_ious", [10, 20])
@pytest.mark.parametrize("seed", range(5))
def test_ota_equals_slow_formulation(seed, num_ious):
    targets = make_targets(4, 30, seed=seed).double()
    candidates = match(targets, 4)
    # Every candidate has predictions of its own, so that no two costs are equal.
    rng = torch.Generator().manual_seed(seed)
    cells = torch.randn(len(candidates.target), 5 + NUM_CLASSES, generator=rng).double()
    owner = assign_ota(candidates, cells, targets, num_ious)
    pairs = {(i, n) for i, n in enumerate(owner.tolist()) if n >= 0}
    assert pairs == slow_ota(candidates, cells, targets, num_ious)


def test_a_target_gets_more_candidates_when_more_of_them_fit():
    target = torch.tensor([[0, 0, 60.0, 60, 30, 30]])
    candidates = match(target, 1)
    cells = torch.zeros(len(candidates.target), 5 + NUM_CLASSES)
    origin = torch.stack((candidates.x, candidates.y), 1)
    offset = target[:, 2:4] / candidates.stride_px - origin
    cells[:, :2] = ((offset + 0.5) / 2).logit(eps=1e-4)
    cells[:, 2:4] = ((target[:, 4:6] / candidates.anchor_px).sqrt() / 2).logit(eps=1e-4)
    perfect = (assign_ota(candidates, cells, target, 10) >= 0).sum()
    poor = (assign_ota(candidates, cells - 3, target, 10) >= 0).sum()
    assert perfect >= 9 and poor == 1


def test_identical_targets_share_no_candidate_and_the_first_one_wins():
    target = torch.tensor([[0, 2, 60.0, 60, 30, 30]])
    targets = target.repeat(2, 1)
    candidates = match(targets, 1)
    cells = torch.zeros(len(candidates.target), 5 + NUM_CLASSES)
    owner = assign_ota(candidates, cells, targets, 10)
    assert set(owner.tolist()) == {-1, 0}


def test_heads_are_matched_and_assigned_as_if_alone():
    """An auxiliary head is more outputs with a reach of its own."""
    targets = make_targets(3, 40)
    both = match(targets, 3, FINE_REACH, COARSE_REACH)
    cells = torch.randn(
        len(both.target), 5 + NUM_CLASSES, generator=torch.Generator().manual_seed(0)
    )
    owner, level = assign_ota(both, cells, targets, 10), both.output % len(STRIDES)
    for head, reach in enumerate((FINE_REACH, COARSE_REACH)):
        alone, own = match(targets, 3, reach), both.output // len(STRIDES) == head
        for field in ("image", "anchor", "y", "x", "target", "origin", "anchor_px", "stride_px"):
            assert torch.equal(getattr(both, field)[own], getattr(alone, field)), field
        assert torch.equal(level[own], alone.output)
        assert torch.equal(owner[own], assign_ota(alone, cells[own], targets, 10))


def test_distance_is_along_the_farther_axis_in_cells():
    candidates = match(torch.tensor([[0, 0, 62.0, 60, 30, 30]]), 1, COARSE_REACH)
    distance = candidates.distance(torch.tensor([[62.0, 60]]).expand(len(candidates.x), 2))
    stride, x, y = candidates.stride_px[:, 0], candidates.x, candidates.y
    expected = torch.maximum((62 / stride - x - 0.5).abs(), (60 / stride - y - 0.5).abs())
    torch.testing.assert_close(distance, expected)
    fine = match(torch.tensor([[0, 0, 62.0, 60, 30, 30]]), 1, FINE_REACH)
    places = set(zip(fine.output.tolist(), fine.x.tolist(), fine.y.tolist(), strict=True))
    rows = zip(candidates.output.tolist(), x.tolist(), y.tolist(), distance.tolist(), strict=True)
    assert all((d < 1) == ((o, i, j) in places) and d <= 1.5 for o, i, j, d in rows)


@pytest.mark.parametrize("scale", [1, 40, 200, 1e4])
def test_classification_costs_are_finite_for_saturated_logits(scale):
    rng = torch.Generator().manual_seed(0)
    cells = scale * torch.randn(50, 5 + NUM_CLASSES, generator=rng)
    as_background, as_object = classification_costs(cells)
    cost = (as_background[:, None] + as_object)[:, [0, 2, 4]]
    assert cost.isfinite().all() and (cost >= 0).all()
    if scale == 1:
        y = (cells[:, 5:].sigmoid() * cells[:, 4:5].sigmoid()).sqrt()
        one_hot = F.one_hot(torch.tensor([0, 2, 4]), NUM_CLASSES).float()
        y, one_hot = (t.expand(50, 3, NUM_CLASSES) for t in (y[:, None], one_hot))
        expected = F.binary_cross_entropy(y, one_hot, reduction="none").sum(2)
        torch.testing.assert_close(cost, expected, rtol=1e-5, atol=1e-5)


def test_classification_costs_lose_no_digits_where_the_probability_is_almost_one():
    cells = torch.tensor([[0, 0, 0, 0, 14.0, 15, -3], [0, 0, 0, 0, 9, 30, 20]])
    for single, double in zip(
        classification_costs(cells), classification_costs(cells.double()), strict=True
    ):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)


def predictions(candidates, seed=0):
    """Raw predictions (K, 5+C), equal where candidates are the same prediction."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(len(candidates.target), 5 + NUM_CLASSES, generator=rng)[candidates.cell] * 2


@pytest.mark.parametrize(("reaches", "num_ious"), [((FINE_REACH,), 10), ((FINE_REACH, COARSE_REACH), 20)])
@pytest.mark.parametrize("seed", range(4))
def test_crowded_images_are_assigned_as_all_others(reaches, num_ious, seed):
    targets = make_targets(3, 60, seed=seed)
    crowd = make_targets(1, 150, seed=seed + 10)
    crowd[:, 0] = 1
    targets = torch.cat((targets[:30], crowd, targets[30:]))
    grids = [(128 // s, 128 // s) for s in STRIDES]
    by_pairs = [match_anchors(targets, ANCHORS_PX, STRIDES, grids, 3, 4.0, reaches, pairs)
                for pairs in (2**30, 50_000, 0)]
    assert [len(candidates.crowds) for candidates in by_pairs] == [0, len(reaches), 3 * len(reaches)]
    assert by_pairs[1].table.shape[-1] < by_pairs[0].table.shape[-1] and not by_pairs[2].table.shape[-1]
    cells = predictions(by_pairs[0], seed)
    alone, some, all_crowded = (assign_ota(candidates, cells, targets, num_ious) for candidates in by_pairs)
    assert (alone >= 0).sum() > 100
    assert torch.equal(alone, some) and torch.equal(alone, all_crowded)


@pytest.mark.parametrize("change", ["far away", "one class surely", "one box", "saturated"])
def test_crowds_without_overlaps_or_full_of_ties_are_assigned_as_all_others(change):
    """Where no overlap decides: predictions that touch nothing, that one class has for certain, or that are equal."""
    targets = make_targets(1, 80, seed=5)
    if change == "one box":
        targets[:, 1:] = targets[3, 1:]
    elif change == "far away":
        targets[:, 2:] = torch.cat((targets[:, 2:4], torch.full((80, 2), 20.0)), 1)
    grids = [(128 // s, 128 // s) for s in STRIDES]
    whole, crowded = (match_anchors(targets, ANCHORS_PX, STRIDES, grids, 1, 4.0, crowd_pairs=p) for p in (2**30, 0))
    cells = predictions(whole)
    if change == "far away":
        cells[:, 2:4] = -12  # boxes of almost no size, which overlap next to nothing
    elif change == "one class surely":
        cells[:, 4:] = cells[:, 4:] * 10
    elif change == "saturated":
        cells *= 60
    assert torch.equal(assign_ota(whole, cells, targets, 10), assign_ota(crowded, cells, targets, 10))
