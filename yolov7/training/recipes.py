"""Training recipes as differences from the defaults: the paper's four, and one for small datasets.

The published hyperparameters do not give the share of nine-image mosaics: their loader uses one in five.
"""

from typing import Any

_NINE_IMAGE_MOSAIC = {"mosaic_nine": 0.2}
_CUSTOM_AUGMENT = _NINE_IMAGE_MOSAIC | {"translate": 0.2, "scale": 0.5, "mixup": 0.0, "paste_in": 0.0}
_P5_AUGMENT = _NINE_IMAGE_MOSAIC | {"translate": 0.2, "scale": 0.9, "mixup": 0.15, "paste_in": 0.15}
_TINY_AUGMENT = _NINE_IMAGE_MOSAIC | {"translate": 0.1, "scale": 0.5, "mixup": 0.05, "paste_in": 0.05}
_LARGE_LOSS = {"box_gain": 0.05, "objectness_gain": 0.7, "classification_gain": 0.3}
_TINY_LOSS = {"box_gain": 0.05, "objectness_gain": 1.0, "classification_gain": 0.5}

_SMALL = {
    "optimizer": {"algorithm": "adamw", "learning_rate": 0.004, "final_learning_rate_ratio": 0.05, "warmup_epochs": 2.0,
                  "warmup_bias_learning_rate": 0.0},
    "loss": {"box_gain": 0.05, "objectness_gain": 0.7, "classification_gain": 0.3, "scale_gains": False},
    "augment": {"mosaic": 0.0, "mixup": 0.0, "paste_in": 0.0, "scale": 0.3, "hsv_saturation": 0.4, "translate": 0.2},
    "ema": {"decay": 0.999, "ramp_updates": 300.0},
    "nominal_batch_size": 8,
}

RECIPES: dict[str, dict[str, Any]] = {
    "small": _SMALL,
    "tiny": {"optimizer": {"final_learning_rate_ratio": 0.01}, "loss": _TINY_LOSS, "augment": _TINY_AUGMENT},
    "p5": {"optimizer": {"final_learning_rate_ratio": 0.1}, "loss": _LARGE_LOSS, "augment": _P5_AUGMENT},
    "p6": {"optimizer": {"final_learning_rate_ratio": 0.2}, "loss": _LARGE_LOSS, "augment": _P5_AUGMENT},
    "custom": {"optimizer": {"final_learning_rate_ratio": 0.1}, "loss": _LARGE_LOSS, "augment": _CUSTOM_AUGMENT},
}

FILLED = tuple(_SMALL)
"""Sections and keys of a train job that a recipe fills."""
