"""Channel counts: always multiples of 8, which hardware multiplies without waste."""

from __future__ import annotations

import math

CHANNEL_MULTIPLE = 8


def scaled_channels(channels: int, factor: float) -> int:
    """Scale a channel count, rounded up to a multiple of 8."""
    tolerance = 1e-6  # 1.1 * 320 must not become 360 because of the last bit
    return max(1, math.ceil(channels * factor / CHANNEL_MULTIPLE - tolerance)) * CHANNEL_MULTIPLE


def scaled_all(channels: tuple[int, ...], factor: float) -> tuple[int, ...]:
    return tuple(scaled_channels(c, factor) for c in channels)


def halves(channels: int) -> tuple[int, int]:
    """Split channels in two, the first half no smaller; both multiples of 8 if `channels` is one above 8."""
    first = scaled_channels(channels, 0.5)
    if first >= channels:  # too few to round
        first = channels - channels // 2
    return first, channels - first
