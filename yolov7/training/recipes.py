"""The paper's four training recipes as differences from the defaults of the three configurations.

The published hyperparameters do not give the share of nine-image mosaics: their loader uses one in five.
"""

_NINE_IMAGE_MOSAIC = {"mosaic_nine": 0.2}
_CUSTOM_AUGMENT = _NINE_IMAGE_MOSAIC | {"translate": 0.2, "scale": 0.5, "mixup": 0.0, "paste_in": 0.0}
_P5_AUGMENT = _NINE_IMAGE_MOSAIC | {"translate": 0.2, "scale": 0.9, "mixup": 0.15, "paste_in": 0.15}
_TINY_AUGMENT = _NINE_IMAGE_MOSAIC | {"translate": 0.1, "scale": 0.5, "mixup": 0.05, "paste_in": 0.05}
_LARGE_LOSS = {"box_gain": 0.05, "objectness_gain": 0.7, "classification_gain": 0.3}
_TINY_LOSS = {"box_gain": 0.05, "objectness_gain": 1.0, "classification_gain": 0.5}

RECIPES: dict[str, dict[str, dict[str, float]]] = {
    "tiny": {"optimizer": {"final_learning_rate_ratio": 0.01}, "loss": _TINY_LOSS, "augment": _TINY_AUGMENT},
    "p5": {"optimizer": {"final_learning_rate_ratio": 0.1}, "loss": _LARGE_LOSS, "augment": _P5_AUGMENT},
    "p6": {"optimizer": {"final_learning_rate_ratio": 0.2}, "loss": _LARGE_LOSS, "augment": _P5_AUGMENT},
    "custom": {"optimizer": {"final_learning_rate_ratio": 0.1}, "loss": _LARGE_LOSS, "augment": _CUSTOM_AUGMENT},
}
