"""YOLOv7 on Ray: one job file in, a trained, tuned, registered and served detector out.

In Python: `submit("job.yaml", set={"epochs": 20}).wait()`, `Detector("blood@latest")("photo.jpg")`, and
`Endpoint("http://127.0.0.1:8000")` with the same face.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .program import VERSION as __version__  # noqa: F401

if TYPE_CHECKING:
    from .detect.detections import Detections  # noqa: F401
    from .detect.detector import Detector  # noqa: F401
    from .detect.endpoint import Endpoint  # noqa: F401
    from .errors import JobError  # noqa: F401

_PUBLIC = {"Detector": "detect.detector", "Detections": "detect.detections", "Endpoint": "detect.endpoint",
           "submit": "command_line.submission", "JobError": "errors"}
"""Name -> module, imported on first use: job files need no PyTorch."""

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
