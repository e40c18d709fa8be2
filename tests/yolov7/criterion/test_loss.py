"""The criterion: goldens, gradients, corners, and the four ways to teach an auxiliary head."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_models import filled_model
from small_loss import SMALL, small_outputs, small_targets

from yolov7.criterion.cells import ReadCells
from yolov7.criterion.loss import balanced_weights, binary_loss, Criterion
from yolov7.criterion.config import LossConfig

GOLDENS = json.loads(
    gzip.decompress((Path(__file__).parents[2] / "goldens" / "loss.json.gz").read_bytes())
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


def spied_assignments(monkeypatch):
    """A list that gets (candidates, owner) of every loss from now on."""
    assigned, assign = [], Criterion._assign

    def spy(self, candidates, *arguments):
        assigned.append((candidates, assign(self, candidates, *arguments)))
        return assigned[-1][1]

    monkeypatch.setattr(Criterion, "_assign", spy)
    return assigned


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if "assigned" in case])
def test_assignment_equals_golden(name, monkeypatch):
    case, assigned = CASES[name], spied_assignments(monkeypatch)
    golden_criterion(case)(golden_outputs(case), EDGES.get(case["edge"], TARGETS))
    outputs = case["assigned"] + case.get("assigned_auxiliary", [])
    expected = [[output, *row] for output, rows in enumerate(outputs) for row in rows]
    (candidates, owner) = assigned[0]
    columns = ("output", "image", "anchor", "y", "x")
    rows = torch.stack([*(getattr(candidates, c) for c in columns), owner], dim=1)[owner >= 0]
    assert sorted(rows.tolist()) == sorted(expected)


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


def test_reading_cells_has_the_gradient_of_finite_differences():
    output = torch.randn(2, 1, 3, 2, 6, dtype=torch.float64, requires_grad=True)
    indices = tuple(torch.tensor(i) for i in ([0, 1, 0], [0, 0, 0], [2, 1, 2], [1, 0, 1]))
    assert torch.autograd.gradcheck(lambda o: ReadCells.apply([indices], o), output)


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
        assigned = spied_assignments(monkeypatch)
        for variant in ("coarse-to-fine", "lead-guided", "independent"):
            assigned.clear()
            self.terms(variant)
            self.terms(variant, outputs=self.OUTPUTS[:2] + small_outputs(seed=5))
            (candidates, owner), (_, other) = assigned
            lead = candidates.output < 2
            assert torch.equal(owner[lead], other[lead])
            assert torch.equal(owner[~lead], other[~lead]) == (variant != "independent")


class TestConstrainedAuxiliaryHead:
    """Paper section 4.2, Table 7."""

    OUTPUTS = small_outputs(heads=2)
    TARGETS = small_targets(9)

    def terms(self, constrained, **changes):
        config = LossConfig(constrain_auxiliary=constrained, **changes)
        return Criterion(**SMALL, num_classes=3, config=config)(self.OUTPUTS, self.TARGETS)

    def test_far_cells_learn_less_objectness(self):
        criterion = Criterion(
            **SMALL, num_classes=3, config=LossConfig(constrain_auxiliary=True)
        )
        target = torch.tensor([[0, 0, 41.0, 31.0, 30, 30]])
        candidates = criterion._match(target, self.OUTPUTS)
        centres_px = target[:, 2:4].expand(len(candidates.x), 2)
        label = criterion._objectness_label(torch.ones(len(centres_px)), candidates, centres_px)
        auxiliary, distance = candidates.output >= 2, candidates.distance(centres_px)
        extra = auxiliary & (distance > 1)
        assert extra.any() and (auxiliary & ~extra).any()
        assert (label[~extra] == 1).all()
        torch.testing.assert_close(label[extra], 2 - distance[extra])
        assert (label[extra] >= 0.5).all() and (label[extra] < 1).all()
        faint = criterion._objectness_label(
            torch.full_like(label, 0.3), candidates, centres_px
        )
        assert (faint == 0.3).all()

    def test_it_lowers_no_more_than_the_objectness_of_coarse_positives(self):
        for assigner in ("anchor", "ota"):
            free, bound = (self.terms(c, assigner=assigner, iou_ratio=0.0) for c in (False, True))
            assert free.objectness != bound.objectness
            torch.testing.assert_close((free.box, free.classification), (bound.box, bound.classification))

    @pytest.mark.parametrize("auxiliary", ["none", "independent", "lead-guided"])
    def test_fine_positives_are_not_bound(self, auxiliary):
        free, bound = (
            self.terms(c, assigner="anchor", auxiliary=auxiliary, iou_ratio=0.0)
            for c in (False, True)
        )
        torch.testing.assert_close(free, bound, rtol=0, atol=0)


class TestClassBalance:
    def test_weights_are_inverse_to_the_effective_number_of_objects(self):
        weights = balanced_weights([1, 10, 1000], 0.99)
        expected = torch.tensor([(1 - 0.99) / (1 - 0.99**n) for n in (1, 10, 1000)])
        torch.testing.assert_close(weights.float(), 3 * expected / expected.sum())
        nearly_inverse = balanced_weights([1, 10, 1000], 1 - 1e-9)
        torch.testing.assert_close(nearly_inverse / nearly_inverse[2] * 1e-3, torch.tensor(
            [1, 0.1, 1e-3], dtype=torch.float64), rtol=1e-5, atol=0)
        assert balanced_weights([0, 1], 0.9).tolist() == [1, 1]

    def test_rare_classes_count_more_and_equal_counts_change_nothing(self):
        targets = small_targets(9)
        plain = Criterion(**SMALL, num_classes=3)(small_outputs(), targets)
        config = LossConfig(class_balance_beta=0.99)
        terms = {}
        for name, counts in {"equal": (7, 7, 7), "rare": (1, 1000, 1000)}.items():
            criterion = Criterion(**SMALL, num_classes=3, config=config, class_counts=counts)
            targets[:, 1] = 0 if name == "rare" else targets[:, 1]
            terms[name] = criterion(small_outputs(), targets)
        torch.testing.assert_close(terms["equal"], plain)
        alone = Criterion(**SMALL, num_classes=3)(small_outputs(), targets)
        weight = balanced_weights((1, 1000, 1000), 0.99)[0].item()
        assert terms["rare"].classification.item() == pytest.approx(
            weight * alone.classification.item()
        )
        assert terms["rare"].box == alone.box and terms["rare"].objectness == alone.objectness

    @pytest.mark.parametrize(
        ("beta", "counts", "message"),
        [
            (0.9, None, "no class counts arrived; class_balance_beta needs the number of objects"),
            (0.9, [1, 2], "2 class counts arrived; .* each of the 3 classes"),
            (1.0, [1, 2, 3], "class_balance_beta is 1.0; 0 to below 1 works"),
        ],
    )
    def test_impossible_settings_are_refused(self, beta, counts, message):
        with pytest.raises(ValueError, match=message):
            Criterion(
                **SMALL,
                num_classes=3,
                config=LossConfig(class_balance_beta=beta),
                class_counts=counts,
            )


def test_gains_are_scaled_to_the_task():
    scaled = LossConfig().scaled_to(num_classes=40, num_levels=4, image_size_px=1280)
    assert scaled.box_gain == pytest.approx(0.05 * 3 / 4)
    assert scaled.classification_gain == pytest.approx(0.3 * 0.5 * 3 / 4)
    assert scaled.objectness_gain == pytest.approx(0.7 * 4 * 3 / 4)
