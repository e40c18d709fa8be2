"""YOLOv7 in plain PyTorch: architectures, training, evaluation (paper: arXiv:2207.02696)."""

from .architectures import ARCHITECTURES, Architecture, architecture
from .loss import Criterion
from .model import build_model
from .postprocess import postprocess
from .reparameterize import reparameterize
from .weights import load_official_state_dict

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Criterion",
    "architecture",
    "build_model",
    "load_official_state_dict",
    "postprocess",
    "reparameterize",
]
