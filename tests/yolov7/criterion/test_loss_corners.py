"""The criterion in the corners: any number of targets, anywhere, any logit, cells that two objects
share, and what a GPU must not wait for. Every test in every way of assignment."""

import pytest
import torch
from small_loss import SMALL, small_outputs, small_targets

import yolov7.criterion.loss
from yolov7.criterion.boxes import bbox_iou
from yolov7.criterion.loss import Criterion
from yolov7.criterion.config import LossConfig

ASSIGNERS = ("anchor", "ota")
VARIANTS = ("none", "independent", "lead-guided", "coarse-to-fine")


def each_way(test):
    """Run a test for every assigner and every variant of the auxiliary head."""
    for mark in (("assigner", ASSIGNERS), ("auxiliary", VARIANTS)):
        test = pytest.mark.parametrize(*mark)(test)
    return test


def make(assigner, auxiliary="coarse-to-fine", num_classes=3, **changes):
    config = LossConfig(assigner, auxiliary=auxiliary, **changes)
    counts = [10**i for i in range(num_classes)]
    return Criterion(**SMALL, num_classes=num_classes, config=config, class_counts=counts)


def lossy(criterion, outputs, targets):
    """Terms and gradients, once all are known to be finite."""
    terms = criterion(outputs, targets)
    terms.total.backward()
    grads = [torch.zeros_like(o) if o.grad is None else o.grad for o in outputs]
    assert all(value.isfinite().all() for value in (*terms, *grads))
    return terms, grads


@pytest.mark.parametrize("num_targets", [0, 1, 7, 500])
@pytest.mark.parametrize("num_classes", [1, 3])
@each_way
def test_any_number_of_targets_in_one_of_two_images(num_targets, num_classes, assigner, auxiliary):
    outputs = small_outputs(num_classes=num_classes, heads=2)
    targets = small_targets(num_targets, num_classes=num_classes)
    targets[:, 0] = 1
    terms, grads = lossy(make(assigner, auxiliary, num_classes), outputs, targets)
    assert terms.total.item() == pytest.approx(2 * sum(t.item() for t in terms[1:]), rel=1e-5)
    assert (terms.box > 0) == (num_targets > 0)
    assert (terms.classification > 0) == (num_targets > 0 and num_classes > 1)
    for grad in grads[: 2 if auxiliary == "none" else 4]:
        assert (grad[0, ..., 4] > 0).all()  # the empty image learns that nothing is there
        assert not grad[0, ..., :4].any() and not grad[0, ..., 5:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5])
@each_way
def test_finite_for_any_logit(gamma, dtype, assigner, auxiliary):
    criterion = make(assigner, auxiliary, focal_gamma=gamma, label_smoothing=0.1)
    for scale in (100, 1e4):
        random = [o.detach().to(dtype) for o in small_outputs(heads=2, scale=scale)]
        for outputs in (random, [scale * o.sign() for o in random]):
            lossy(criterion, [o.requires_grad_() for o in outputs], small_targets(9))


@each_way
def test_targets_on_the_border_and_across_it(assigner, auxiliary):
    spots = torch.cartesian_prod(*[torch.tensor([-0.01, 0.0, 1e-7, 0.5, 1 - 1e-7, 1.0, 1.01])] * 2)
    targets = small_targets(1, num_images=1).repeat(len(spots), 1)
    targets[:, 2:4], targets[:, 4:] = spots, 0.4
    for rows in (targets, *targets.split(7)):
        terms, _ = lossy(make(assigner, auxiliary), small_outputs(num_images=1, heads=2), rows)
        assert terms.box > 0


@each_way
def test_order_of_images_and_of_targets_that_do_not_meet_does_not_matter(assigner, auxiliary):
    criterion, outputs = make(assigner, auxiliary), small_outputs(num_images=4, heads=2)
    targets = small_targets(4)
    targets[:, 0] = torch.arange(4)
    expected = criterion(outputs, targets)
    torch.testing.assert_close(criterion(outputs, targets[[2, 0, 3, 1]]), expected)
    targets[:, 0] = 3 - targets[:, 0]
    torch.testing.assert_close(criterion([o.flip(0) for o in outputs], targets), expected)


def test_where_objects_meet_objectness_learns_from_the_last_of_them():
    """Same centre, same anchors: all cells are shared, so the first target leaves no trace in them."""
    first, last = (torch.tensor([[0, 0, 0.42, 0.42, w, h]]) for w, h in ((0.25, 0.4), (0.3, 0.35)))
    criterion = make("anchor", box_gain=0.0, classification_gain=0.0)

    def grads(*targets):
        return lossy(criterion, small_outputs(num_images=1, heads=2), torch.cat(targets))[1]

    torch.testing.assert_close(grads(first, last), grads(last))
    torch.testing.assert_close(grads(last, first), grads(first))
    assert all((a != b).any() for a, b in zip(grads(first), grads(last), strict=True))


@each_way
def test_crowded_cells_give_the_same_every_time(assigner, auxiliary):
    targets = small_targets(300, num_images=1)
    targets[:, 2:4] = 0.3 + 0.1 * targets[:, 2:4]
    (terms, grads), (again, same) = (
        lossy(make(assigner, auxiliary), small_outputs(heads=2), targets) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip((*terms, *grads), (*again, *same), strict=True))


@pytest.mark.parametrize("gamma", [0.0, 1.5])
@each_way
def test_gradient_is_that_of_finite_differences(gamma, assigner, auxiliary, monkeypatch):
    """Constants by design are taken out: labels that follow the overlap, and CIoU's alpha."""
    monkeypatch.setattr(yolov7.criterion.loss, "bbox_iou", lambda a, b, kind: bbox_iou(a, b, "diou"))
    changes = {"classification_positive_weight": 1.5, "objectness_positive_weight": 0.8}
    criterion = make(
        assigner, auxiliary, focal_gamma=gamma, iou_ratio=0.0, class_balance_beta=0.9, **changes
    )
    outputs = small_outputs(num_images=1, heads=2, dtype=torch.float64)
    if auxiliary == "none":
        outputs = outputs[:2]
    targets = small_targets(3, num_images=1).double()

    def loss(*outputs):
        return criterion(outputs, targets).total

    assert torch.autograd.gradcheck(loss, outputs, fast_mode=True)


@each_way
def test_nothing_waits_for_the_device(assigner, auxiliary, monkeypatch):
    """Once targets are matched on the host, no value and no shape is read back, forward or backward."""
    criterion = make(assigner, auxiliary, class_balance_beta=0.9, constrain_auxiliary=True)
    outputs, targets = small_outputs(heads=2), small_targets(20)
    used = outputs[:2] if auxiliary == "none" else outputs
    host_targets = criterion._in_pixels(targets, outputs[0])
    candidates = criterion._match(host_targets, used)
    monkeypatch.setattr(criterion, "_in_pixels", lambda *_: host_targets)
    monkeypatch.setattr(criterion, "_match", lambda *_: candidates)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        criterion(outputs, targets).total.backward()
    called = {event.key for event in profile.key_averages()}
    assert called & {"aten::topk", "aten::index_put_"}
    waiting = ("item", "_local_scalar_dense", "nonzero", "_unique2", "masked_select", "equal")
    assert not called & {f"aten::{name}" for name in waiting}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, 2, "has image 2; 0 to 1 are possible"),
        (1, 3, "has class 3; 0 to 2 are possible"),
        (1, -1, "has class -1; 0 to 2 are possible"),
        (1, float("nan"), "has class nan; 0 to 2 are possible"),
        (2, float("nan"), "box is not finite"),
        (5, float("inf"), "box is not finite"),
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
@each_way
def test_gpu_gives_the_same_without_waiting(assigner, auxiliary):
    targets = small_targets(60)
    criterion = make(assigner, auxiliary, class_balance_beta=0.9, constrain_auxiliary=True)
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
