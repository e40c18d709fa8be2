"""`search: recipe`: every number of a training recipe, with the range in which it is searched.

All four recipes lie within the ranges. Numbers that decide what is learnt rather than how well (which algorithm,
which assigner, how much is read ahead) are not searched.
"""

from typing import Any

from ...train.spec import TrainSpec

RANGES: dict[str, tuple[dict[str, list[float]], str]] = {
    "optimizer.learning_rate": (
        {"loguniform": [1e-3, 1e-1]}, "a decade on either side of SGD's 0.01; above 0.1 detectors diverge"),
    "optimizer.final_learning_rate_ratio": (
        {"loguniform": [0.005, 0.5]}, "the recipes end at 0.01 to 0.2 of the peak; above a half there is no decay"),
    "optimizer.momentum": (
        {"uniform": [0.8, 0.98]}, "from an average over 5 updates to one over 50; beyond it does not settle"),
    "optimizer.weight_decay": (
        {"loguniform": [1e-5, 5e-3]}, "a factor of 50 below and 10 above 0.0005; more forgets faster than it learns"),
    "optimizer.warmup_epochs": (
        {"uniform": [0.0, 5.0]}, "longer than the recipes' 3 helps high rates only; at most half of a trial"),
    "optimizer.warmup_momentum": (
        {"uniform": [0.5, 0.95]}, "a start with less memory than the 0.8 of the recipes, or as much as later"),
    "optimizer.warmup_bias_learning_rate": (
        {"uniform": [0.0, 0.2]}, "from none to twice the recipes' 0.1, by which biases find the base rate of objects"),
    "loss.box_gain": (
        {"loguniform": [0.02, 0.2]}, "a factor of four on the weight of overlap, 0.05, upwards, 2.5 downwards"),
    "loss.objectness_gain": (
        {"loguniform": [0.2, 4.0]}, "the recipes have 0.7 and 1.0 at 640 px; few or crowded objects move it far"),
    "loss.classification_gain": (
        {"loguniform": [0.1, 2.0]}, "0.3 and 0.5 for 80 classes; datasets of few, similar classes need more"),
    "loss.objectness_positive_weight": (
        {"loguniform": [0.5, 2.0]}, "precision against recall: a factor of two either way"),
    "loss.classification_positive_weight": (
        {"loguniform": [0.5, 2.0]}, "a factor of two either way, as for objectness"),
    "loss.anchor_ratio_threshold": (
        {"uniform": [2.0, 8.0]}, "below 2 most objects match no anchor, above 8 the sizes of the levels mix"),
    "loss.label_smoothing": (
        {"uniform": [0.0, 0.1]}, "0.1 is usual for classifiers; more blurs the score that AP ranks by"),
    "loss.focal_gamma": (
        {"uniform": [0.0, 2.0]}, "from plain cross-entropy to the focal loss of RetinaNet"),
    "loss.iou_ratio": (
        {"uniform": [0.5, 1.0]}, "how much objectness tells of overlap; below a half it ranks boxes poorly"),
    "loss.auxiliary_gain": (
        {"uniform": [0.1, 0.5]}, "twice and less than half of the paper's 0.25; the lead head must dominate"),
    "loss.class_balance_beta": (
        {"uniform": [0.0, 0.999]}, "from no balance to nearly inverse frequency"),
    "augment.mosaic": ({"uniform": [0.0, 1.0]}, "a probability"),
    "augment.mosaic_nine": ({"uniform": [0.0, 0.5]}, "nine images make small objects; more than half is far from use"),
    "augment.close_mosaic": ({"uniform": [0.0, 0.5]}, "from never to the last half of the epochs"),
    "augment.mixup": ({"uniform": [0.0, 0.3]}, "twice the 0.15 of the large recipes; small models suffer from more"),
    "augment.hsv_hue": ({"uniform": [0.0, 0.1]}, "beyond a tenth colours change their names"),
    "augment.hsv_saturation": ({"uniform": [0.0, 0.9]}, "from none to nearly grey"),
    "augment.hsv_value": ({"uniform": [0.0, 0.9]}, "from none to nearly black"),
    "augment.rotate_degrees": ({"uniform": [0.0, 45.0]}, "an upright box of a turned object grows; at 45 degrees most"),
    "augment.translate": ({"uniform": [0.0, 0.9]}, "a part of the image's side; at 1 it is out of sight"),
    "augment.scale": ({"uniform": [0.0, 0.95]}, "the recipes have 0.5 and 0.9; 1 would shrink to nothing"),
    "augment.shear_degrees": ({"uniform": [0.0, 10.0]}, "cameras slant no more"),
    "augment.perspective": ({"uniform": [0.0, 0.001]}, "beyond a thousandth per pixel images turn inside out"),
    "augment.flip_vertical": ({"uniform": [0.0, 0.5]}, "a half is full symmetry: right from above, wrong on a street"),
    "augment.flip_horizontal": ({"uniform": [0.0, 0.5]}, "a half is full symmetry; 0 where left and right differ"),
    "augment.paste_in": ({"uniform": [0.0, 0.3]}, "twice the 0.15 of the large recipes"),
    "augment.copy_paste": ({"uniform": [0.0, 0.3]}, "per outlined object; has no effect without outlines"),
}
"""Dotted path -> distribution, and the reason for its bounds."""
NOT_SEARCHED = {"augment.partner_window": "a matter of speed",
                "optimizer.clip_norm": "a safeguard that acts on rare updates"}
"""Numbers of the recipe that have no range."""
ADAM_RATES = {"loguniform": [1e-4, 1e-2]}
"""Adam's steps are normalised: its rates lie a decade below SGD's."""


def recipe_search(train: TrainSpec) -> dict[str, dict[str, Any]]:
    """The ranges that fit a train job, as a search of a job file: without numbers that have no effect there."""
    found = {path: distribution for path, (distribution, _) in RANGES.items()}
    if train.optimizer.algorithm != "sgd":
        found["optimizer.learning_rate"] = ADAM_RATES
    if not train.build_architecture().has_auxiliary:
        del found["loss.auxiliary_gain"]
    low, high = found["optimizer.warmup_epochs"]["uniform"]
    found["optimizer.warmup_epochs"] = {"uniform": [low, min(high, train.epochs / 2)]}
    return found
