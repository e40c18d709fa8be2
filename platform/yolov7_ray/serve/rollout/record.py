"""The state of a roll-out, kept in the registry and replaced by compare-and-swap: whoever reads it goes on with it.

    <registry>/_endpoints/<endpoint>/<model>.json
"""

import json
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ... import storage
from ...errors import AlreadyExists, Corrupt, NotFound
from .decision import Thresholds

Status = Literal["progressing", "promoted", "passed", "rolled back"]
"""passed: a shadow that was as good as the stable version; it was not promoted."""
MAX_EVENTS = 50


@dataclass(frozen=True)
class RollOut:
    """A candidate beside the stable version of a served model."""

    model: str
    """Name in the API."""
    deployed: str
    """Version that the serve job names; with another one, this record says nothing about the deployment."""
    stable: str
    """Version that answers what the candidate does not."""
    candidate: str
    weights: tuple[float, ...]
    """Share of the requests in each step; 1 is last and promotes. Of a shadow: of the copies."""
    hold_s: float
    """How long each step lasts at least."""
    shadow: bool = False
    """Answers of the candidate are compared and not returned."""
    sticky: str | None = None
    """Header whose value decides who answers; None: the request's id."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    status: Status = "progressing"
    step: int = 0
    step_began: float | None = None
    """Unix time; None: the candidate is not up yet."""
    began: float = field(default_factory=time.time)
    previous: str | None = None
    """Stable version before it was promoted."""
    reason: str = ""
    events: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def is_active(self) -> bool:
        """Whether there is a candidate."""
        return self.status == "progressing"

    @property
    def weight(self) -> float:
        """Share of the current step."""
        return self.weights[self.step] if self.is_active else 0.0

    def begin(self, now: float) -> "RollOut":
        """The candidate is up."""
        return replace(self, step_began=now)._told(f"candidate {self.candidate} is up: {_share(self)}")

    def advance(self, reason: str, now: float) -> "RollOut":
        """The next step; promoted where that is all, passed after the last of a shadow."""
        following = self.weights[self.step + 1:]
        if self.shadow and not following:
            return replace(self, status="passed", reason=reason)._told(f"{self.candidate} passed: {reason}")
        if following[0] == 1 and not self.shadow:
            return replace(self, status="promoted", stable=self.candidate, previous=self.stable, reason=reason)._told(
                f"{self.candidate} is promoted: {reason}")
        moved = replace(self, step=self.step + 1, step_began=now)
        return moved._told(f"{_share(moved)}: {reason}")

    @property
    def has_next(self) -> bool:
        """Whether a step follows, the end of a shadow included."""
        return self.shadow or self.step + 1 < len(self.weights)

    def roll_back(self, reason: str) -> "RollOut":
        """End it; of one that was promoted, the version before is stable again."""
        stable = self.previous if self.status == "promoted" and self.previous else self.stable
        return replace(self, status="rolled back", stable=stable, previous=None, reason=reason)._told(
            f"{self.candidate} is rolled back to {stable}: {reason}")

    def _told(self, text: str) -> "RollOut":
        stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return replace(self, events=(*self.events, f"{stamp}  {text}")[-MAX_EVENTS:])


def _share(state: RollOut) -> str:
    return f"{state.weight:.4g} of the requests" if not state.shadow else f"copies of {state.weight:.4g} of the requests"


class Records:
    """The roll-outs of one endpoint."""

    def __init__(self, registry: str, endpoint: str) -> None:
        self._registry, self._endpoint = registry, endpoint

    def read(self, model: str) -> tuple[RollOut | None, str | None]:
        """The record of a model and its version; None where there is none. Corrupt if it is not one."""
        uri = self._uri(model)
        try:
            data, etag = storage.read_with_etag(uri)
        except NotFound:
            return None, None
        try:
            found: dict[str, Any] = json.loads(data)
            thresholds = Thresholds(**found.pop("thresholds"))
            weights, events = tuple(found.pop("weights")), tuple(found.pop("events"))
            return RollOut(**found, thresholds=thresholds, weights=weights, events=events), etag
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Corrupt(uri, f"is no roll-out ({error})", "remove it") from error

    def swap(self, state: RollOut, etag: str | None) -> str:
        """Replace the version `etag` (None: there is none); the new version. AlreadyExists if it was replaced before."""
        data = (json.dumps(asdict(state), indent=1) + "\n").encode()
        try:
            return storage.compare_and_swap(self._uri(state.model), data, etag)
        except NotFound as error:
            raise AlreadyExists(self._uri(state.model), "was removed meanwhile") from error

    def stable_ref(self, model: str, deployed: str) -> str:
        """The version that answers: the one that was deployed, unless a roll-out of it was promoted."""
        state, _ = self.read(model)
        return deployed if state is None or state.deployed != deployed else state.stable

    def _uri(self, model: str) -> str:
        return storage.join(self._registry, "_endpoints", self._endpoint, f"{model}.json")
