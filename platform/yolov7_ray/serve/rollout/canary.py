"""The gateway's side of a roll-out: who answers, what is counted, and what the controller is told."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from ray.serve.handle import DeploymentHandle

from ...detect.options import Options
from ..limits import RequestError
from ..served import Detected, ServedInfo, ServedModel
from .split import Split
from .window import Window, agreement

REPORT_EVERY_S = 1.0
REPORT_TIMEOUT_S = 30.0
CANDIDATE_TIMEOUT_S = 20.0
"""A candidate that has not answered by then has failed, and the stable version answers."""
MAX_COPIES = 16
"""Copies for a shadow that wait at a time; others are left out."""


@dataclass
class Comparison:
    """The counts of a gateway in one step."""

    split: Split
    stable: Window = field(default_factory=Window)
    candidate: Window = field(default_factory=Window)
    left_out: int = 0
    """Copies that a busy shadow did not get."""


class Canary:
    """A served model beside whose stable version there may be a candidate."""

    def __init__(self, stable: ServedModel, connect: Callable[[Split], ServedModel]) -> None:
        """``connect``: the model behind the candidate's handle."""
        self._stable, self._connect = stable, connect
        self._candidate: ServedModel | None = None
        self.comparison: Comparison | None = None
        self._copies: set[asyncio.Task] = set()
        self.check_room, self.is_ready, self.newer = stable.check_room, stable.is_ready, stable.newer

    @property
    def info(self) -> ServedInfo:
        return self._stable.info

    async def follow(self, split: Split | None) -> None:
        """Go on with this split; counts begin anew with each."""
        before = self.comparison.split if self.comparison else None
        if split == before:
            return
        if split is not None and (before is None or split.roll_out != before.roll_out):
            self._candidate = await asyncio.to_thread(self._connect, split)
        self.comparison = Comparison(split) if split else None

    async def detect(self, image: bytes | np.ndarray, options: Options, draw: bool = False) -> Detected:
        """Detect by the stable version or, if the request is the candidate's, by that one unless it fails."""
        comparison, candidate = self.comparison, self._candidate
        if comparison is None:
            return await self._stable.detect(image, options, draw)
        split = comparison.split
        chosen = split.takes_current()
        if chosen and not split.shadow and _has_room(candidate):
            try:
                return await self._by_candidate(comparison.candidate, candidate, image, options, draw)
            except RequestError as error:
                if error.status < 500:
                    raise
            except Exception as error:  # noqa: BLE001  (whatever the candidate does, the stable version answers)
                if comparison.candidate.errors == 1:  # once in a step
                    print(f"serve: {split.candidate} failed: {type(error).__name__}: {error}", flush=True)
        found = await _counted(comparison.stable, self._stable, image, options, draw)
        if chosen and split.shadow:
            self._copy(comparison, candidate, found, image, options)
        return found

    @staticmethod
    async def _by_candidate(window: Window, candidate: ServedModel, *request) -> Detected:
        try:
            async with asyncio.timeout(CANDIDATE_TIMEOUT_S):
                return await _counted(window, candidate, *request)
        except TimeoutError:
            window.add_error()
            raise

    def _copy(self, comparison: Comparison, shadow: ServedModel, found: Detected, image: bytes | np.ndarray,
              options: Options) -> None:
        """Let the shadow look at the image, too; nobody waits for it."""
        if len(self._copies) >= MAX_COPIES or not _has_room(shadow):
            comparison.left_out += 1
            return
        copy = asyncio.create_task(self._compare(comparison.candidate, shadow, found, image, options))
        self._copies.add(copy)
        copy.add_done_callback(self._copies.discard)
        copy.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is counted

    async def _compare(self, window: Window, shadow: ServedModel, found: Detected, *request) -> None:
        other = await self._by_candidate(window, shadow, *request, False)
        names = (found.info.classes, other.info.classes)
        share = await asyncio.to_thread(agreement, found.detections, other.detections, names)
        window.pairs, window.agreed = window.pairs + 1, window.agreed + share


def _has_room(candidate: ServedModel) -> bool:
    """Whether it takes another request; it has failed nothing where it does not."""
    try:
        candidate.check_room()
        return True
    except RequestError:
        return False


async def _counted(window: Window, model: ServedModel, image: bytes | np.ndarray, options: Options,
                   draw: bool) -> Detected:
    """Detect, and count the answer or the failure; a request that is wrong by itself is neither."""
    begun = time.perf_counter()
    try:
        found = await model.detect(image, options, draw)
    except RequestError as error:
        if error.status >= 500:
            window.add_error()
        raise
    except Exception:
        window.add_error()
        raise
    window.add(found.detections, found.info.classes, 1e3 * (time.perf_counter() - begun))
    return found


class Reporter:
    """Tells the controller what a gateway counted, and follows what it answers, every second."""

    def __init__(self, gateway: str, canaries: Mapping[str, Canary], controller: DeploymentHandle) -> None:
        self._gateway, self._canaries, self._controller = gateway, canaries, controller

    async def run(self) -> None:
        """Report for ever. A controller that is away changes nothing."""
        while True:
            counted = {name: canary.comparison for name, canary in self._canaries.items() if canary.comparison}
            try:
                splits = await asyncio.wait_for(self._controller.report.remote(self._gateway, counted), REPORT_TIMEOUT_S)
                for name, canary in self._canaries.items():
                    await canary.follow(splits.get(name))
            except Exception:  # noqa: BLE001  (being replaced, or not up yet)
                pass
            await asyncio.sleep(REPORT_EVERY_S)


class Reports:
    """What the gateways counted, by model: the last report of each, whether it still lives or not."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Comparison]] = defaultdict(dict)

    def add(self, gateway: str, counted: Mapping[str, Comparison]) -> None:
        """Take a report."""
        for model, comparison in counted.items():
            self._last[model][gateway] = comparison

    def total(self, model: str, split: Split) -> Comparison:
        """The counts of all gateways in this step."""
        total = Comparison(split)
        for each in self._last[model].values():
            if each.split == split:
                total = Comparison(split, total.stable + each.stable, total.candidate + each.candidate,
                                   total.left_out + each.left_out)
        return total
