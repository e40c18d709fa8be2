"""The criterion: goldens, gradients, corners, and the four ways to teach an auxiliary head."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_models import filled_model

from yolov7.loss import Criterion, LossConfig, ReadCells, binary_loss

GOLDENS = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "goldens" / "loss.json.gz").read_bytes())
)
TARGETS = torch.tensor(GOLDENS["targets"])
CASES = {name: case for name, case in GOLDENS["cases"].items() if case["source"] != "model"}
EDGES = {
    "no_targets": TARGETS[:0],
    "only_image_2": TARGETS[TARGETS[:, 0] == 2],
    "one_tiny_object": torch.tensor([[0, 0, 0.5, 0.5, 1e-3, 1e-3]]),
}


def golden_outputs(case):
    """The raw outputs of a golden case, by the rule under which it was written."""
    outputs = []
    for i, shape in enumerate(case["shapes"]):
        first_seed = {"normal": 100, "sparse": 200}[case["source"]]
        values = np.random.default_rng(first_seed + i).standard_normal(shape)
        if case["source"] == "sparse":
            values[..., 4:] = 1.5 * values[..., 4:] - 4
        if case["edge"] == "saturated_logits_40":
            values[..., 4:] = 40
        outputs.append(torch.tensor(values.astype(np.float32), requires_grad=True))
    return outputs


def golden_criterion(case, **changes):
    model = GOLDENS["models"][case["model"]]
    box, objectness, classification = case["gains"]
    config = LossConfig(
        assigner="anchor" if case["loss"] == "plain" else "ota",
        box_gain=box,
        objectness_gain=objectness,
        classification_gain=classification,
    )
    changed = LossConfig(**(vars(config) | changes))
    return Criterion(model["anchors_px"], model["strides"], 80, changed)


def assert_grad(outputs, case, rtol=1e-5):
    for output, total, norm in zip(outputs, case["grad_abs_sum"], case["grad_l2"], strict=True):
        assert output.grad.double().abs().sum().item() == pytest.approx(total, rel=rtol)
        assert output.grad.double().norm().item() == pytest.approx(norm, rel=rtol)


@pytest.mark.parametrize("name", [n for n in CASES if "saturated" not in n])
def test_loss_and_gradient_equal_golden(name):
    case = CASES[name]
    outputs = golden_outputs(case)
    terms = golden_criterion(case)(outputs, EDGES.get(case["edge"], TARGETS))
    terms.total.backward()
    for term in ("total", "box", "objectness", "classification"):
        assert getattr(terms, term).item() == pytest.approx(case[term], rel=2e-6, abs=1e-7), term
    assert_grad(outputs, case)


@pytest.mark.parametrize(
    "model_name",
    [
        "yolov7-tiny",
        pytest.param("yolov7", marks=pytest.mark.slow),
        pytest.param("yolov7-w6", marks=pytest.mark.slow),
    ],
)
def test_loss_of_a_model_equals_golden(model_name):
    """Looser by what the network's own float32 rounding adds."""
    model = filled_model(model_name).train()
    cases = [c for c in GOLDENS["cases"].values() if c["source"] == "model"]
    for case in (c for c in cases if c["model"] == model_name):
        size = (4, 3, case["height_px"], case["width_px"])
        images = torch.tensor(np.random.default_rng(0).random(size).astype(np.float32))
        with torch.no_grad():
            raw = model(images)[: len(case["shapes"])]
        outputs = [output.clone().requires_grad_() for output in raw]
        terms = golden_criterion(case)(outputs, TARGETS)
        terms.total.backward()
        for term in ("total", "box", "objectness", "classification"):
            assert getattr(terms, term).item() == pytest.approx(case[term], rel=2e-5), term
        assert_grad(outputs, case, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if "assigned" in case])
def test_assignment_equals_golden(name, monkeypatch):
    case, assigned = CASES[name], []
    criterion, assign = golden_criterion(case), Criterion._assign

    def spy(self, candidates, *arguments):
        owner = assign(self, candidates, *arguments)
        keep = owner >= 0
        columns = (candidates.level, candidates.image, candidates.anchor, candidates.y, candidates.x)
        rows = torch.stack((*columns, owner), dim=1)[keep]
        assigned.append(sorted(rows.tolist()))
        return owner

    monkeypatch.setattr(Criterion, "_assign", spy)
    criterion(golden_outputs(case), EDGES.get(case["edge"], TARGETS))
    heads = [case[k] for k in ("assigned", "assigned_auxiliary") if k in case]
    expected = [[[level, *r] for level, rows in enumerate(h) for r in rows] for h in heads]
    assert assigned == [sorted(rows) for rows in expected]


@pytest.mark.parametrize("name", [n for n in CASES if "saturated" in n])
def test_saturated_logits_cost_what_they_should(name):
    """All scores 40: the reference's costs overflow there, so its choice of boxes is arbitrary;
    that choice decides a small part of the objectness too."""
    case = CASES[name]
    outputs = golden_outputs(case)
    terms = golden_criterion(case)(outputs, TARGETS)
    terms.total.backward()
    assert terms.objectness.item() == pytest.approx(case["objectness"], rel=1e-3)
    assert terms.box.isfinite() and all(o.grad.isfinite().all() for o in outputs)


SMALL = {"anchors_px": [[[10, 14], [23, 27]], [[37, 58], [81, 82]]], "strides": (8, 16)}


def small_outputs(num_images=2, num_classes=3, heads=1, dtype=torch.float32, scale=1.0, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shapes = [(num_images, 2, 64 // s, 96 // s, 5 + num_classes) for s in SMALL["strides"] * heads]
    return [
        (scale * torch.randn(shape, generator=rng, dtype=dtype)).requires_grad_()
        for shape in shapes
    ]


def small_targets(num_targets, num_images=2, num_classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    targets = torch.rand(num_targets, 6, generator=rng)
    targets[:, 0] = (targets[:, 0] * num_images).floor()
    targets[:, 1] = (targets[:, 1] * num_classes).floor()
    targets[:, 4:] = 0.1 + 0.5 * targets[:, 4:]
    return targets


@pytest.mark.parametrize("num_targets", [0, 1, 7, 500])
@pytest.mark.parametrize("assigner", ["anchor", "ota"])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_any_number_of_targets(num_targets, assigner, num_classes):
    outputs = small_outputs(num_classes=num_classes, heads=2)
    targets = small_targets(num_targets, num_classes=num_classes)
    targets[:, 0] = 1
    terms = Criterion(**SMALL, num_classes=num_classes, config=LossConfig(assigner))(outputs, targets)
    terms.total.backward()
    assert terms.total.item() == pytest.approx(2 * sum(t.item() for t in terms[1:]), rel=1e-5)
    assert all(o.grad.isfinite().all() for o in outputs)
    assert (terms.box > 0) == (num_targets > 0)
    assert (terms.classification > 0) == (num_targets > 0 and num_classes > 1)


@pytest.mark.parametrize("scale", [100, 1e4])
@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_finite_for_any_logit(scale, gamma):
    outputs = small_outputs(heads=2, scale=scale)
    config = LossConfig(focal_gamma=gamma, label_smoothing=0.1)
    terms = Criterion(**SMALL, num_classes=3, config=config)(outputs, small_targets(9))
    terms.total.backward()
    assert all(t.isfinite() for t in terms) and all(o.grad.isfinite().all() for o in outputs)


def test_order_of_images_and_layout_in_memory_do_not_matter():
    criterion, targets = Criterion(**SMALL, num_classes=3), small_targets(9)
    outputs = small_outputs()
    expected = criterion(outputs, targets)
    expected.total.backward()

    permuted = [o.detach().permute(0, 1, 4, 2, 3).contiguous() for o in outputs]
    views = [p.requires_grad_().permute(0, 1, 3, 4, 2) for p in permuted]
    terms = criterion(views, targets)
    terms.total.backward()
    torch.testing.assert_close(terms, expected)
    for output, leaf in zip(outputs, permuted, strict=True):
        torch.testing.assert_close(leaf.grad.permute(0, 1, 3, 4, 2), output.grad)

    swapped = targets.clone()
    swapped[:, 0] = 1 - swapped[:, 0]
    torch.testing.assert_close(criterion([o.flip(0) for o in outputs], swapped), expected)


def test_half_precision_outputs_are_scored_in_float32():
    targets = small_targets(9)
    rounded = [o.detach().bfloat16().float() for o in small_outputs()]
    expected = Criterion(**SMALL, num_classes=3)(rounded, targets)
    outputs = [o.bfloat16().requires_grad_() for o in rounded]
    terms = Criterion(**SMALL, num_classes=3)(outputs, targets)
    terms.total.backward()
    torch.testing.assert_close(terms, expected)
    assert all(o.grad.dtype == torch.bfloat16 and o.grad.abs().sum() > 0 for o in outputs)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_scores_have_the_gradient_of_finite_differences(gamma):
    """Labels that depend on the boxes are constants by design, so only the scores move here."""
    config = LossConfig("anchor", focal_gamma=gamma, classification_positive_weight=1.5)
    criterion = Criterion(**SMALL, num_classes=3, config=config)
    outputs = small_outputs(num_images=1, dtype=torch.float64)
    boxes = [o.detach()[..., :4] for o in outputs]
    targets = small_targets(3, num_images=1)

    def loss(*scores):
        pairs = zip(boxes, scores, strict=True)
        return criterion([torch.cat(pair, -1) for pair in pairs], targets).total

    scores = [o.detach()[..., 4:].requires_grad_() for o in outputs]
    assert torch.autograd.gradcheck(loss, scores, fast_mode=True)


def test_reading_cells_has_the_gradient_of_finite_differences():
    output = torch.randn(2, 1, 3, 2, 6, dtype=torch.float64, requires_grad=True)
    indices = [torch.tensor(i) for i in ([0, 1, 0], [0, 0, 0], [2, 1, 2], [1, 0, 1])]
    assert torch.autograd.gradcheck(lambda o: ReadCells.apply(o, *indices), output)


def test_positive_weight_and_smoothing_count():
    logit, label = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])
    p = logit.sigmoid()
    torch.testing.assert_close(
        binary_loss(logit, label, 3.0), torch.stack((-3 * p[0].log(), -(1 - p[1]).log()))
    )
    outputs, targets = small_outputs(), small_targets(5)
    terms = [
        Criterion(**SMALL, num_classes=3, config=LossConfig(label_smoothing=s))(outputs, targets)
        for s in (0.0, 0.2)
    ]
    assert terms[0].classification != terms[1].classification and terms[0].box == terms[1].box


def test_focal_loss_of_an_empty_map_is_that_of_zero_labels():
    logit = torch.linspace(-8, 8, 33)
    for gamma in (0.0, 1.5):
        zeros = binary_loss(logit, torch.zeros_like(logit), focal_gamma=gamma)
        torch.testing.assert_close(binary_loss(logit, focal_gamma=gamma), zeros)


class TestAuxiliaryHead:
    """Paper section 4.2, figure 5."""

    OUTPUTS = small_outputs(heads=2)
    TARGETS = small_targets(9)

    def terms(self, auxiliary, outputs=None, **changes):
        config = LossConfig(auxiliary=auxiliary, **changes)
        return Criterion(**SMALL, num_classes=3, config=config)(
            outputs or self.OUTPUTS, self.TARGETS
        )

    def test_without_it_only_the_lead_head_counts(self):
        lead_alone = Criterion(**SMALL, num_classes=3)(self.OUTPUTS[:2], self.TARGETS)
        torch.testing.assert_close(self.terms("none"), lead_alone)

    def test_each_variant_is_another_loss(self):
        variants = ("none", "independent", "lead-guided", "coarse-to-fine")
        assert len({self.terms(v).total.item() for v in variants}) == 4

    def test_gain_zero_leaves_the_lead_loss(self):
        zero, other = (
            self.terms(v, auxiliary_gain=0.0).total for v in ("coarse-to-fine", "independent")
        )
        torch.testing.assert_close(zero, other)

    @pytest.mark.parametrize("auxiliary", ["independent", "lead-guided"])
    def test_equal_heads_get_equal_labels(self, auxiliary):
        lead = self.OUTPUTS[:2]
        both = self.terms(auxiliary, outputs=lead + lead)
        lead_only = self.terms(auxiliary, outputs=lead + lead, auxiliary_gain=0.0)
        torch.testing.assert_close(both.total, 1.25 * lead_only.total)

    def test_lead_guided_labels_do_not_depend_on_the_auxiliary_head(self, monkeypatch):
        owners, assign = [], Criterion._assign

        def spy(self, *arguments):
            owners.append(assign(self, *arguments))
            return owners[-1]

        monkeypatch.setattr(Criterion, "_assign", spy)
        for variant in ("coarse-to-fine", "independent"):
            owners.clear()
            self.terms(variant)
            self.terms(variant, outputs=self.OUTPUTS[:2] + small_outputs(seed=5))
            assert torch.equal(owners[0], owners[2])
            assert torch.equal(owners[1], owners[3]) == (variant == "coarse-to-fine")


def test_gains_are_scaled_to_the_task():
    scaled = LossConfig().scaled_to(num_classes=40, num_levels=4, image_size_px=1280)
    assert scaled.box_gain == pytest.approx(0.05 * 3 / 4)
    assert scaled.classification_gain == pytest.approx(0.3 * 0.5 * 3 / 4)
    assert scaled.objectness_gain == pytest.approx(0.7 * 4 * 3 / 4)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, 2, "has image 2; 0 to 1 are possible"),
        (1, 3, "has class 3; 0 to 2 are possible"),
        (1, -1, "has class -1; 0 to 2 are possible"),
        (1, float("nan"), "has class nan; 0 to 2 are possible"),
    ],
)
def test_impossible_targets_are_refused(column, value, message):
    targets = small_targets(3)
    targets[1, column] = value
    with pytest.raises(ValueError, match=message):
        Criterion(**SMALL, num_classes=3)(small_outputs(), targets)


def test_impossible_shapes_are_refused():
    criterion = Criterion(**SMALL, num_classes=3)
    with pytest.raises(ValueError, match="3 outputs arrived; a model of 2 levels gives 2, or 4"):
        criterion(small_outputs(heads=2)[:3], small_targets(3))
    with pytest.raises(ValueError, match=r"targets have shape \(3, 5\); \(N, 6\) holds image"):
        criterion(small_outputs(), small_targets(3)[:, :5])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("assigner", ["anchor", "ota"])
def test_gpu_gives_the_same_without_waiting(assigner):
    targets = small_targets(60)
    criterion = Criterion(**SMALL, num_classes=3, config=LossConfig(assigner))
    expected_outputs = small_outputs(heads=2)
    expected = criterion(expected_outputs, targets)
    expected.total.backward()
    outputs = [o.detach().cuda().requires_grad_() for o in expected_outputs]
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = criterion(outputs, targets)
        terms.total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close([t.cpu() for t in terms], list(expected), rtol=1e-4, atol=1e-5)
    for output, other in zip(outputs, expected_outputs, strict=True):
        torch.testing.assert_close(output.grad.cpu(), other.grad, rtol=1e-3, atol=1e-6)
