"""YOLOv7 in plain PyTorch: architectures, training, evaluation (paper: arXiv:2207.02696)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .architectures.family import ARCHITECTURES, architecture
    from .architectures.language import Architecture
    from .checkpoints.weights import load_official_state_dict
    from .criterion.loss import Criterion
    from .evaluation.postprocess import postprocess
    from .model.detector import build_model
    from .model.reparameterize import reparameterize

_PUBLIC = {
    "ARCHITECTURES": "architectures.family",
    "Architecture": "architectures.language",
    "Criterion": "criterion.loss",
    "architecture": "architectures.family",
    "build_model": "model.detector",
    "load_official_state_dict": "checkpoints.weights",
    "postprocess": "evaluation.postprocess",
    "reparameterize": "model.reparameterize",
}
"""Name -> module, imported on first use: the architectures and all configurations need no PyTorch."""

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
