"""Whether a candidate goes on: two windows of counts -> advance, hold or roll back, with the reason."""

import math
from dataclasses import dataclass
from enum import Enum

from .window import Window, shift_index

Z = 2.326
"""Of a one-sided test at 1 %: what may be chance is not held against a candidate."""


@dataclass(frozen=True)
class Thresholds:
    """What a candidate may do worse than, or otherwise than, the stable version."""

    min_requests: int = 200
    """Of each of the two in a step, before they are compared."""
    max_errors: float = 0.01
    """Share of requests that it fails, above that of the stable version."""
    max_latency: float = 1.5
    """Its p99, as a multiple of the stable version's."""
    max_empty: float = 0.10
    """Share of answers without an object: difference in either direction."""
    max_shift: float = 0.25
    """Population stability index of scores and of classes."""
    min_agreement: float = 0.0
    """Of a shadow: mean share of objects that both find in an image. 0: told, and not judged."""


class Action(Enum):
    """What follows from a comparison."""

    HOLD = "hold"
    ADVANCE = "advance"
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class Verdict:
    """An action and why."""

    action: Action
    reason: str


def decide(stable: Window, candidate: Window, limits: Thresholds, held_s: float, hold_s: float) -> Verdict:
    """Compare the two versions over a step that has lasted `held_s` of `hold_s` seconds.

    Errors count at once, when even faultless requests up to the least number could not make up for them; the rest
    counts once each has answered the least number of requests, where the difference is not chance (one-sided, 1 %).
    """
    excess = candidate.errors / max(candidate.requests, limits.min_requests, 1) - stable.error_share
    if excess > limits.max_errors:
        return Verdict(Action.ROLL_BACK, f"it failed {candidate.errors} of {candidate.requests} requests, "
                                         f"the stable version {stable.errors} of {stable.requests}")
    for name, window in (("candidate", candidate), ("stable version", stable)):
        if window.requests < limits.min_requests:
            return Verdict(Action.HOLD, f"{window.requests} of {limits.min_requests} requests of the {name}")
    for check in (_latency, _empty, _scores, _classes, _agreement):
        if reason := check(stable, candidate, limits):
            return Verdict(Action.ROLL_BACK, reason)
    if held_s < hold_s:
        return Verdict(Action.HOLD, f"as good as the stable version for {held_s:.0f} of {hold_s:.0f} s")
    return Verdict(Action.ADVANCE, f"as good as the stable version over {candidate.requests} requests")


def _latency(stable: Window, candidate: Window, limits: Thresholds) -> str:
    """More than one answer in a hundred is slower than allowed, and by more than chance."""
    allowed_ms, answers = stable.p99_ms * limits.max_latency, candidate.answers
    chance = 0.01 * answers + Z * math.sqrt(0.01 * 0.99 * answers)
    if not stable.answers or candidate.slower_than(allowed_ms) <= chance:
        return ""
    return f"p99 latency is {candidate.p99_ms:.0f} ms, the stable version's {stable.p99_ms:.0f} ms"


def _empty(stable: Window, candidate: Window, limits: Thresholds) -> str:
    spread = sum(window.empty_share * (1 - window.empty_share) / max(window.answers, 1) for window in (stable, candidate))
    if abs(candidate.empty_share - stable.empty_share) - Z * math.sqrt(spread) <= limits.max_empty:
        return ""
    return (f"{candidate.empty_share:.1%} of its answers hold no object, "
            f"of the stable version's {stable.empty_share:.1%}")


def _scores(stable: Window, candidate: Window, limits: Thresholds) -> str:
    return _shift("scores", stable, candidate, limits)


def _classes(stable: Window, candidate: Window, limits: Thresholds) -> str:
    return _shift("classes", stable, candidate, limits)


def _agreement(stable: Window, candidate: Window, limits: Thresholds) -> str:
    if candidate.agreement >= limits.min_agreement:
        return ""
    return f"it finds {candidate.agreement:.1%} of the objects that the stable version finds"


def _shift(what: str, stable: Window, candidate: Window, limits: Thresholds) -> str:
    expected, actual = getattr(stable, what), getattr(candidate, what)
    images = [max(window.answers - window.empty, 1) for window in (stable, candidate)]
    index = shift_index(expected, actual)
    if not expected or not actual or index <= max(limits.max_shift, _chance(len(expected | actual), *images)):
        return ""
    return f"the distribution of {what} has changed: population stability index {index:.2f}"


def _chance(bins: int, *images: int) -> float:
    """Index that 99 % of samples of one population stay below: chi-square's quantile times (1/n + 1/m).

    n and m are images, as the objects of an image are not independent. The quantile is Wilson and Hilferty's.
    """
    degrees = max(bins - 1, 1)
    part = 2 / (9 * degrees)
    return degrees * (1 - part + Z * math.sqrt(part)) ** 3 * sum(1 / count for count in images)
