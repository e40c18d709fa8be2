"""Which images are kept: a share of the requests, and those that the model is not sure of."""

import hashlib

import numpy as np

from .spec import Capture


def reason_to_keep(capture: Capture, request_id: str, scores: np.ndarray) -> str | None:
    """`share` or `uncertain`; None for most. The same request is kept by every gateway, or by none."""
    number = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big")
    if number < capture.share * 2**64:
        return "share"
    low, high = capture.band or (1, 0)
    return "uncertain" if ((scores >= low) & (scores <= high)).any() else None
