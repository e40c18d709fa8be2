"""What is asked for: a roll-out in words of the command line -> its steps and thresholds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import JobError
from ...registry.registry import NAME, REF
from .decision import Thresholds

STEPS = (0.05, 0.25, 1.0)
HOLD_S = 600.0
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


@dataclass(frozen=True)
class Request:
    """A roll-out as a user asks for it."""

    model: str | None
    """Served model; None: the one that serves a version of the same registered model."""
    ref: str
    """NAME, NAME@ALIAS or NAME:VERSION in the endpoint's registry."""
    weights: tuple[float, ...] = STEPS
    hold_s: float = HOLD_S
    shadow: bool = False
    sticky: str | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)


def request(target: str, *, weight: str | None = None, steps: str | None = None, hold: str | None = None,
            shadow: bool = False, sticky: str | None = None, limits: Sequence[str] = ()) -> Request:
    """The request of `[NAME=]REF` and options; JobError where one does not fit."""
    model, _, ref = target.rpartition("=")
    if not REF.fullmatch(ref) or model and not NAME.fullmatch(model):
        raise JobError(target, "is no model to roll out", "give [NAME=]MODEL@ALIAS or [NAME=]MODEL:VERSION, NAME as in "
                                                          "the endpoint's job")
    if sticky is not None and not HEADER.fullmatch(sticky):
        raise JobError(f"--sticky {sticky}", "is no name of a header", "give e.g. --sticky X-User-ID")
    hold_s = HOLD_S if hold is None else _seconds(hold)
    return Request(model or None, ref, _weights(weight, steps, shadow), hold_s, shadow, sticky, _thresholds(limits))


def _weights(weight: str | None, steps: str | None, shadow: bool) -> tuple[float, ...]:
    """The share of each step, rising."""
    if shadow:
        if steps is not None:
            raise JobError("--steps", "do not fit a shadow, which answers nothing", "give --weight, the share of the "
                                                                                   "requests of which it gets copies")
        return (1.0 if weight is None else _share("--weight", weight),)
    shares = STEPS if steps is None else tuple(_share("--steps", step) for step in steps.split(","))
    if list(shares) != sorted(set(shares)):
        raise JobError(f"--steps {steps}", "do not rise", "give e.g. --steps 5,25,100")
    if weight is not None:
        first = _share("--weight", weight)
        shares = (first, *(share for share in shares if share > first))
    return shares


def _share(where: str, text: str) -> float:
    """A percentage above 0 as a share: 5 or 5%."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%?", text.strip())
    if found is None or not 0 < float(found[1]) <= 100:
        raise JobError(f"{where} {text}", "is no percentage above 0 and at most 100", "give e.g. 5%")
    return float(found[1]) / 100


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smh]?)", text.strip())
    if found is None:
        raise JobError(f"--hold {text}", "is no time", "give e.g. 30s, 10m or 2h")
    return float(found[1]) * UNITS[found[2]]


def _thresholds(limits: Sequence[str]) -> Thresholds:
    """Those of KEY=VALUE words; shares may be given as percentages."""
    values, known = {}, Thresholds.__dataclass_fields__
    for limit in limits:
        key, _, text = limit.partition("=")
        found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)(%?)", text.strip())
        if key not in known or found is None or key == "min_requests" and not found[0].isdecimal():
            raise JobError(f"--limit {limit}", "is no threshold",
                           f"give KEY=VALUE with a KEY of {', '.join(known)}, e.g. max_errors=1%")
        values[key] = int(text) if key == "min_requests" else float(found[1]) / (100 if found[2] else 1)
    return Thresholds(**values)
