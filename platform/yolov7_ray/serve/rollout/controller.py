"""The controller of an endpoint's roll-outs: gateways report to it and follow it; its state is in the registry.

There is one, without a share in answering: while it is away gateways go on as they are, and the one that Ray Serve
starts in its place goes on from the record.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from ...errors import AlreadyExists, JobError
from ...program import command
from ...registry.registry import Registry
from ..served import ServedInfo
from . import candidate
from .canary import Comparison, Reports
from .decision import Action, decide
from .record import Records, RollOut
from .request import Request
from .split import Split

TICK_S = 1.0
CONFIRM_EVERY_S = 10.0
"""How often the replicas are asked for the version that they are to serve."""
CONFIRM_TIMEOUT_S = 300.0
"""How long replicas may take to load it."""
LEARN_S = 5.0
"""By then the gateways send nothing more to a candidate that has ended."""
UP_DEADLINE_S = 600.0
"""A candidate that is not up by then, or has been down for so long since, is rolled back."""


@dataclass
class Managed:
    """A served model and its roll-out."""

    info: ServedInfo
    recipe: candidate.Recipe
    handle: DeploymentHandle
    state: RollOut | None = None
    etag: str | None = None
    is_read: bool = False
    judged: str = ""
    """What the last comparison said."""
    down_since: float | None = None
    confirmed: str | None = None
    """The version that all replicas have told to serve."""
    confirm_at: float = 0.0
    remove_at: float | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def current(self) -> RollOut | None:
        """The roll-out, if it is one of what is deployed."""
        return self.state if self.state is not None and self.state.deployed == self.info.ref else None

    @property
    def stable(self) -> str:
        """The version that answers."""
        return self.current.stable if self.current else self.info.ref

    @property
    def split(self) -> Split | None:
        """What gateways follow; a candidate that is promoted keeps its share until the replicas serve it."""
        state = self.current
        if state is None or state.step_began is None:
            return None
        if not state.is_active and (state.status != "promoted" or self.confirmed == state.stable):
            return None
        return Split(state.id, state.step, state.weights[state.step], state.shadow, state.sticky,
                     candidate.application_of(self.info.name), state.candidate)


@serve.deployment
class RollOutController:
    """Starts, judges and ends roll-outs."""

    def __init__(self, records: Records, infos: list[ServedInfo], recipes: list[candidate.Recipe],
                 *handles: DeploymentHandle) -> None:
        """``infos`` of what is deployed, by exact version; ``handles`` of its replicas."""
        self._records, self._reports = records, Reports()
        self._models = {info.name: Managed(info, recipe, handle)
                        for info, recipe, handle in zip(infos, recipes, handles, strict=True)}
        self._tasks: list[asyncio.Task] = []

    async def report(self, gateway: str, counted: Mapping[str, Comparison]) -> dict[str, Split]:
        """Take what a gateway counted; model -> what it is to follow."""
        self._begin()
        self._reports.add(gateway, counted)
        return {name: model.split for name, model in self._models.items() if model.split}

    async def start(self, request: Request) -> str:
        """Begin a roll-out; JobError if there is one already, or the model is unknown. Returns what was begun."""
        model = self._model(request.model, request.ref)
        async with model.lock:
            await self._read(model)
            if model.info.endpoint is None:
                raise JobError(model.info.name, "follows its alias, or is not of the registry",
                               "deploy NAME@ALIAS or NAME:VERSION without `follow`")
            if model.current and model.current.is_active:
                raise JobError(model.info.name, f"is being rolled out to {model.current.candidate}",
                               f"wait, or: {command(f'endpoint roll-back {model.info.name}')}")
            ref = (await asyncio.to_thread(Registry(model.info.registry).resolve, request.ref)).ref
            if ref == model.stable:
                raise JobError(model.info.name, f"serves {ref} already", "give another version")
            await asyncio.to_thread(candidate.remove, model.info.name)
            await self._save(model, RollOut(
                model.info.name, model.info.ref, model.stable, ref, request.weights, request.hold_s, request.shadow,
                request.sticky, request.thresholds))
            if model.current is None or model.current.candidate != ref or not model.current.is_active:
                raise JobError(model.info.name, "was changed by another controller meanwhile", "try again")
        return f"{model.info.name}: {ref} is rolled out beside {model.stable}"

    async def roll_back(self, name: str | None) -> str:
        """End a roll-out, or undo one that was promoted; JobError if there is none."""
        model = self._model(name, None)
        async with model.lock:
            await self._read(model)
            state = model.current
            if state is None or not state.is_active and not (state.status == "promoted" and state.previous):
                raise JobError(model.info.name, "has no roll-out to roll back",
                               f"it serves {model.stable}; {command('endpoint status')} shows the last one")
            await self._save(model, state.roll_back("asked for"))
        return f"{model.info.name}: {state.candidate} is rolled back to {model.stable}"

    async def status(self) -> list[dict[str, Any]]:
        """Of every model: name, version, roll-out (None), split's counts, what the last comparison said."""
        self._begin()
        return [{"model": name, "deployed": model.info.ref, "stable": model.stable, "roll_out": model.current,
                 "judged": model.judged, "counts": self._reports.total(name, model.split) if model.split else None}
                for name, model in self._models.items()]

    def _begin(self) -> None:
        self._tasks = self._tasks or [asyncio.create_task(self._tick(model)) for model in self._models.values()]

    async def _tick(self, model: Managed) -> None:
        """Look after a model, for ever."""
        while True:
            try:
                async with model.lock:
                    await self._read(model)
                    await self._look_after(model)
            except Exception as error:  # noqa: BLE001  (storage or Ray Serve away for a while: tried again)
                model.judged = f"cannot go on for now: {error}"
            await asyncio.sleep(TICK_S)

    async def _look_after(self, model: Managed) -> None:
        state = model.current
        if state is not None and state.is_active:
            await self._progress(model, state)
        elif model.state is not None and model.state.is_active:
            await self._save(model, model.state.roll_back(f"{model.info.ref} was deployed"))
        if model.current is None:
            return
        if time.monotonic() >= model.confirm_at or model.confirmed != model.stable:
            await self._confirm(model)
        if not model.current.is_active and model.split is None:
            await self._clear(model)

    async def _progress(self, model: Managed, state: RollOut) -> None:
        """Start the candidate if it is not there; judge it if it is up."""
        name, model.remove_at = model.info.name, None
        status, message = await asyncio.to_thread(candidate.state, name)
        if status == "":
            try:
                await asyncio.to_thread(candidate.start, model.recipe, model.info, state.candidate)
            except JobError as error:
                return await self._save(model, state.roll_back(f"it cannot be served: {error}"))
        if status == "DEPLOY_FAILED":
            return await self._save(model, state.roll_back(f"it cannot be served: {message}"))
        if status != "RUNNING":
            model.down_since = model.down_since or time.monotonic()
            model.judged = f"waiting for the candidate: {message or 'starting'}"
            if time.monotonic() - model.down_since > UP_DEADLINE_S:
                await self._save(model, state.roll_back(f"it is not up within {UP_DEADLINE_S:g} s: {message}"))
            return
        model.down_since = None
        if state.step_began is None:
            return await self._save(model, state.begin(time.time()))
        counts = self._reports.total(name, model.split)
        verdict = decide(counts.stable, counts.candidate, state.thresholds, time.time() - state.step_began, state.hold_s)
        model.judged = verdict.reason
        if verdict.action is Action.ROLL_BACK:
            await self._save(model, state.roll_back(verdict.reason))
        elif verdict.action is Action.ADVANCE and state.has_next:
            await self._save(model, state.advance(verdict.reason, time.time()))
        elif verdict.action is Action.ADVANCE:
            model.judged += "; this was the last step: promote it by another roll-out, or roll it back"

    async def _confirm(self, model: Managed) -> None:
        """Have every replica serve the stable version; those that start later read it themselves."""
        model.confirm_at = time.monotonic() + CONFIRM_EVERY_S
        try:
            told = await model.handle.broadcast("become", model.stable).results_async(timeout_s=CONFIRM_TIMEOUT_S)
        except DeploymentUnavailableError:  # scaled to none
            told = []
        if all(ref == model.stable for ref in told):
            model.confirmed = model.stable

    async def _clear(self, model: Managed) -> None:
        """Remove the candidate once no gateway uses it any more."""
        now = time.monotonic()
        model.remove_at = model.remove_at or now + LEARN_S
        if now >= model.remove_at:
            await asyncio.to_thread(candidate.remove, model.info.name)
            model.remove_at = now + 10 * CONFIRM_EVERY_S  # and should there be one again

    async def _read(self, model: Managed) -> None:
        """The record, once."""
        if not model.is_read:
            model.state, model.etag = await asyncio.to_thread(self._records.read, model.info.name)
            model.is_read = True

    async def _save(self, model: Managed, state: RollOut) -> None:
        """Replace the record; if another controller did so before, go on with what that one wrote."""
        try:
            model.etag = await asyncio.to_thread(self._records.swap, state, model.etag)
        except AlreadyExists:
            model.is_read = False
            return await self._read(model)
        model.state, model.judged = state, ""
        if state.events:
            print(f"serve: {model.info.name}: {state.events[-1]}", flush=True)

    def _model(self, name: str | None, ref: str | None) -> Managed:
        """The model of that name; without one, the only one, or the only one of the same registered model."""
        chosen = list(self._models) if name is None else [each for each in self._models if each == name]
        if name is None and ref is not None:
            registered = _registered(ref)
            chosen = [each for each, model in self._models.items() if _registered(model.info.ref) == registered]
        if len(chosen) != 1:
            raise JobError(name or ref or "roll-back", "names no model of the endpoint" if not chosen else
                           f"may be {' or '.join(chosen)}", f"give a NAME of {', '.join(self._models)}")
        return self._models[chosen[0]]


_registered: Callable[[str], str] = lambda ref: ref.partition("@")[0].partition(":")[0]  # noqa: E731
