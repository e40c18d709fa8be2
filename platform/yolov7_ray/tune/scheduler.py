"""Which trial is trained next, and how far: proposals, promotion, retries and finalists of one search, without Ray.

All of it is in the search's directory, in ``search.json``, before a trial acts on it. So a search that was killed goes
on as it would have without that.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Protocol

from .. import storage
from ..errors import JobError, NotFound, StorageError
from ..train.checkpoints import checkpoint_name
from ..train.spec import TrainSpec
from .finalists import finalists, outcome
from .search.population import explored
from .search.proposals import FINISHED
from .search.records import Step
from .search.rules import rule_of, rungs_of
from .search.space import Space
from .spec import TuneSpec
from .trial import Trial

STATE = "search.json"
"""In a search's directory: what is known of every trial, and the state of the rule."""
ROWS = "trials.json"
"""In a search's directory: the table of trials."""
FINALISTS = "finalists.json"
"""In a search's directory: the table of finalists."""
MAX_DRAWS = 20
"""How often values near to a donor's are drawn until the train job accepts them; then they stay the donor's."""
MAX_FAILED_FIRST = 3
"""The search ends if so many trials fail before one reaches a rung."""


class Known(Protocol):
    """What a proposer knows of a point."""

    values: dict[str, Any]
    costs: dict[str, float]
    """Figures that are known before training."""
    reason: str | None
    """Why it is not trained."""


class Proposer(Protocol):
    """Who proposes the values of new trials."""

    trials: Mapping[str, Known]
    rejected: Sequence[Known]

    def suggest(self, trial: str) -> dict[str, Any] | Literal["FINISHED"]: ...

    def observe(self, trial: str, epoch: int, figures: dict[str, float | None]) -> None: ...

    def reject(self, trial: str, costs: dict[str, float]) -> str | None: ...

    def lost(self, trial: str) -> None: ...

    def state(self) -> dict: ...


class Start(NamedTuple):
    """A trial to train now."""

    trial: Trial
    job: TrainSpec
    keep_all: bool
    """Whether every checkpoint that training keeps stays."""
    measures: bool
    """Whether only its latency is measured, before it is trained."""
    keep: str | None = None
    """Its checkpoint from which others may still go on."""


class Scheduler:
    """The decisions of one search."""

    def __init__(self, spec: TuneSpec, run: str, proposer: Callable[[dict | None], Proposer], num_images: int,
                 measures_latency: bool = False, log: Callable[[str], None] = print) -> None:
        """``proposer``: makes one from its state, None: a new one. ``num_images``: of the training split.

        ``measures_latency``: on the machine of each trial, before it is trained.
        """
        self.spec, self.run, self.log = spec, run, log
        self._num_images, self._measures_latency = num_images, measures_latency
        state = read_state(run)
        self.proposer = proposer(state.get("proposer"))
        self.trials = {name: Trial(name, **known) for name, known in state.get("trials", {}).items()}
        self.finalists = {name: Trial(name, **known) for name, known in state.get("finalists", {}).items()}
        """Trainings that follow the search, each with its own job."""
        self.history: list[list] = state.get("history", [])
        """[compute spent by all, trial, epoch] of every rung that was reached, in order."""
        self._earlier_s, self._began = state.get("elapsed_s", 0.0), _now()
        self.rule = rule_of(spec, state.get("promotion"))
        self._to_start = [trial for trial in self._all() if trial.status in ("running", "failed")]
        for trial in self._to_start:
            trial.status, trial.lost, trial.error = "running", 0, None
        self._started: set[str] = set()
        self._newest: dict[str, str | None] = {}
        self._exhausted = self._settled = False

    # --- what is known ------------------------------------------------------------------------------

    @property
    def elapsed_s(self) -> float:
        """How long this search has run, its earlier parts included."""
        return self._earlier_s + _now() - self._began

    @property
    def running(self) -> dict[str, int]:
        """Trial -> rung to which it is trained, or to be trained."""
        return {name: trial.to_epoch for name, trial in self.trials.items() if trial.status == "running"}

    @property
    def num_started(self) -> int:
        """How many trials are trained at this moment."""
        return len(self._started)

    @property
    def is_finished(self) -> bool:
        """Whether nothing runs and nothing may be started."""
        return self._settled and not self.running and all(trial.status != "running" for trial in self._all())

    def _all(self) -> list[Trial]:
        return [*self.trials.values(), *self.finalists.values()]

    def rows(self) -> list[dict]:
        """The table of trials, as they came, and of the points that were rejected."""
        rejected = [Trial(f"rejected-{number}", known.values, "", "rejected", figures=known.costs, reason=known.reason)
                    for number, known in enumerate(self.proposer.rejected, 1)]
        return [trial.row(self.is_finished) for trial in (*self.trials.values(), *rejected)]

    def outcome(self) -> list[dict]:
        """Rows of the finalists, the best first, as far as they are trained."""
        results = {name: trial.figures for name, trial in self.finalists.items() if trial.status == "trained"}
        return outcome(self.spec, self.rows(), results) if results else []

    # --- decisions ----------------------------------------------------------------------------------

    def next(self) -> Start | None:
        """The next trial to train, whose decision is in storage; None: none until another has paused or ended."""
        if self._to_start:
            return self._begin(self._to_start.pop(0))
        while not self._settled:
            step = self._step()
            if step is None:
                self._settled = True
                return self._last() if not self.running else None
            if step.trial is not None:
                trial = self.trials[step.trial]
                if step.donor is not None:
                    self._exploit(trial, self.trials[step.donor])
                trial.status, trial.to_epoch = "running", step.to_epoch
                return self._begin(trial)
            name = f"{len(self.trials) + 1:03d}"
            values = self._suggested(name)
            if values == FINISHED:
                self._exhausted = True
                continue
            trial = self.trials[name] = Trial(name, values, storage.join(self.run, "trials", name),
                                              to_epoch=step.to_epoch)
            return self._begin(trial)
        return None

    def _last(self) -> Start | None:
        """What follows the last trial: the finalists, if the job has some."""
        self._explain()
        if self.spec.finalists and not self.finalists:
            self.finalists = {name: self._finalist(name, job) for name, job in finalists(self.spec, self.rows())}
            self._to_start = [trial for trial in self.finalists.values() if trial.status == "running"]
        self.save()
        return self._begin(self._to_start.pop(0)) if self._to_start else None

    def _finalist(self, name: str, job: TrainSpec) -> Trial:
        """A training that follows the search; a trial that was trained with the same job is not trained again."""
        for trial in self.trials.values():
            given = {"name": name, "storage": job.storage}
            if trial.status == "trained" and self.job(trial).model_copy(update=given) == job:
                return replace(trial, trial_id=name, job=job.model_dump(mode="json"))
        return Trial(name, {}, storage.join(self.run, "trials", name), to_epoch=job.epochs,
                     job=job.model_dump(mode="json"))

    @property
    def could_start(self) -> bool:
        """Whether a trial could be started now, if there is room for it."""
        return bool(self._to_start) or not self._settled and self._step() is not None

    def _step(self) -> Step | None:
        out_of_time = self.spec.budget.hours is not None and self.elapsed_s > 3600 * self.spec.budget.hours
        may_propose = not self._exhausted and self._num_proposed() < self.spec.budget.trials
        if out_of_time:
            return None
        return self.rule.next(self.running, may_propose)

    def _exploit(self, trial: Trial, donor: Trial) -> None:
        """Let a trial go on from a donor's weights, with values near to the donor's."""
        space, drawn = Space(self.spec.search), random.Random(f"{self.spec.seed} {trial.trial_id} {trial.epoch}")
        near = (explored(space, donor.values, drawn) for _ in range(MAX_DRAWS))
        trial.follow(donor, next(filter(self.spec.is_valid, near), donor.values))
        self.log(f"trial {trial.trial_id}  goes on from the weights of trial {donor.trial_id} after epoch "
                 f"{trial.epoch}, with values near to its")

    def _suggested(self, name: str) -> dict[str, Any] | Literal["FINISHED"]:
        """Values of a new trial; told are the points that break a constraint."""
        before = len(self.proposer.rejected)
        values = self.proposer.suggest(name)
        if found := self.proposer.rejected[before:]:
            self.log(f"{len(found)} point{'s' if len(found) > 1 else ''} rejected, the last: {found[-1].reason}")
        return values

    def _num_proposed(self) -> int:
        return sum(trial.status != "rejected" for trial in self.trials.values())

    def _begin(self, trial: Trial) -> Start:
        trial.reason, measures = None, False
        if trial.job is None:
            trial.figures |= self.proposer.trials[trial.trial_id].costs
            measures = self._measures_latency and trial.figures.get("latency_ms") is None
        self._started.add(trial.trial_id)
        self.save()
        keep = checkpoint_name(trial.epoch) if self.spec.algorithm == "population" and trial.epoch else None
        return Start(trial, self.job(trial), self.spec.keep_checkpoints == "all", measures, keep)

    def job(self, trial: Trial) -> TrainSpec:
        """The train job of a trial."""
        job = self.spec.trial(trial.values) if trial.job is None else TrainSpec.model_validate(trial.job)
        return job.model_copy(update={"storage": storage.join(self.run, "trials")})

    def measured(self, name: str, costs: dict[str, float]) -> Trial:
        """What the trial costs on its machine; it is trained now, or rejected."""
        trial = self._ended(name)
        numbers = {figure: value for figure, value in costs.items() if isinstance(value, int | float)}
        trial.reason = self.proposer.reject(name, numbers)
        trial.figures |= self.proposer.trials[name].costs
        if trial.reason is None:
            self._to_start.insert(0, trial)
        else:
            trial.status, trial.to_epoch, self._settled = "rejected", 0, False
            self.save()
        return trial

    def reached(self, name: str, figures: dict[str, float | None]) -> Trial:
        """The trial has been trained to its rung, with these figures there."""
        trial = self._ended(name)
        trial.epoch, trial.lost, trial.origin = trial.to_epoch, 0, None
        if trial.job is None:
            trial.status = "trained" if trial.epoch == self.spec.train.epochs else "paused"
            trial.figures = figures | self.proposer.trials[name].costs
            trial.cost = (trial.figures.get("gflops") or 0.0) * self.job(trial).data.num_chosen(self._num_images)
            self.rule.record(name, trial.epoch, trial.figures, trial.cost, trial.values)
            self.proposer.observe(name, trial.epoch, trial.figures)
            self.history.append([self.rule.spent(), name, trial.epoch])
            self._settled = False
        else:
            trial.status, trial.figures = "trained", figures
        self.save()
        return trial

    def _ended(self, name: str) -> Trial:
        """The trial, or finalist, of which a leg has ended."""
        self._started.discard(name)
        return self.trials.get(name) or self.finalists[name]

    def failed(self, name: str, error: str, retryable: bool, newest: str | None = None) -> Trial:
        """The trial was lost; it is tried again unless that is useless or was done often enough without progress.

        ``newest``: its newest checkpoint.
        JobError if the first trials of the search all fail: the others would, too.
        """
        trial = self._ended(name)
        trial.lost = trial.lost + 1 if newest in (None, self._newest.get(name)) else 1
        self._newest[name] = newest or self._newest.get(name)
        if retryable and trial.lost <= self.spec.retries:
            self._to_start.append(trial)
            return trial
        trial.status, trial.error = "failed", error
        if trial.job is None:
            self.rule.lost(name)
            self.proposer.lost(name)
            self._settled = False
        self.save()
        self._check_failures(error)
        return trial

    def _check_failures(self, error: str) -> None:
        failed = [trial for trial in self.trials.values() if trial.status == "failed"]
        if len(failed) >= MAX_FAILED_FIRST and not any(trial.epoch for trial in self.trials.values()):
            raise JobError(f"run {self.run}", f"the first {MAX_FAILED_FIRST} trials failed, the last with: "
                           f"{last_line(error)}", "mend the train job, and start a new search or --resume this one")

    def _explain(self) -> None:
        """Say of each paused trial why it waits."""
        for name, trial in self.trials.items():
            if trial.status == "paused":
                trial.reason = self.rule.reason(name)

    # --- storage ------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state; if storage does not answer, the next decision writes all of it."""
        try:
            storage.write_json(storage.join(self.run, STATE), {
                "elapsed_s": self.elapsed_s, "finished": self.is_finished, "rungs": rungs_of(self.spec),
                "spent": self.rule.spent(), "history": self.history, "promotion": self.rule.state(),
                "proposer": self.proposer.state(),
                "trials": {name: trial.state() for name, trial in self.trials.items()},
                "finalists": {name: trial.state() for name, trial in self.finalists.items()}})
            storage.write_json(storage.join(self.run, ROWS), self.rows())
            if self.finalists:
                storage.write_json(storage.join(self.run, FINALISTS), self.outcome())
        except StorageError as error:
            self.log(f"the state of the search could not be written ({error}); it goes on")


def read_state(run: str) -> dict:
    """What search.json holds; empty before the first decision."""
    try:
        return storage.read_json(storage.join(run, STATE))
    except NotFound:
        return {}


def last_line(error: str) -> str:
    """The line of a traceback that says what happened."""
    return (error.strip().splitlines() or ["unknown"])[-1]


def _now() -> float:
    return time.monotonic()
