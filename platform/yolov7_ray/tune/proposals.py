"""Which values are tried next: Optuna's TPE, which proposes nothing twice."""

import base64
import itertools
import json
import math
import random
from typing import Any

from optuna.trial import TrialState
from ray import cloudpickle
from ray.tune.search.optuna import OptunaSearch

from .search_space import search_space
from .spec import TuneSpec

MAX_REPEATS = 10
"""How many repeats in a row are answered from memory before a point is drawn among those that are left."""
MAX_LISTED = 100_000
"""Most points of a search space that are listed to find those that are left."""

Values = dict[str, Any]


class Proposer(OptunaSearch):
    """Optuna's TPE; weighs AP against FLOPs if the search changes the cost of the model."""

    def __init__(self, spec: TuneSpec) -> None:
        metric, mode = (["score", "gflops"], ["max", "min"]) if spec.searches_architecture else ("score", "max")
        super().__init__(space=search_space(spec.search), metric=metric, mode=mode, seed=spec.seed)
        self._search = spec.search
        self._random = random.Random(spec.seed)
        self._running: dict[str, str] = {}
        self._known: dict[str, list[float] | None] = {}
        self.trials, self.rejected = {}, []

    def suggest(self, trial_id: str) -> Values | str:
        """Values of a new trial; FINISHED: every point of the space has been proposed."""
        values = super().suggest(trial_id)
        for _ in range(MAX_REPEATS):
            if key_of(values) not in self._known:
                break
            self._answer(trial_id, self._known[key_of(values)])
            values = super().suggest(trial_id)
        if key_of(values) in self._known:
            left = self._unknown()
            if left == []:
                self._answer(trial_id, self._known[key_of(values)])
                return self.FINISHED
            if left:
                self._answer(trial_id, self._known[key_of(values)])
                self._ot_study.enqueue_trial(self._random.choice(left))
                values = super().suggest(trial_id)
        self._running[trial_id] = key_of(values)
        self.trials[trial_id] = Known()
        self._known[key_of(values)] = None
        return values

    def _answer(self, trial_id: str, outcome: list[float] | None) -> None:
        """Tell Optuna what a repeat would reach; nothing if the first of its kind still runs, or failed."""
        trial = self._ot_trials.pop(trial_id)
        if outcome is None:
            self._ot_study.tell(trial, state=TrialState.FAIL)
        else:
            self._ot_study.tell(trial, outcome)

    def _unknown(self) -> list[Values] | None:
        """The points that have not been proposed; None: there are too many to be listed."""
        axes = [distribution.values() for distribution in self._search.values()]
        if None in axes or math.prod(map(len, axes)) > MAX_LISTED:
            return None
        points = [dict(zip(self._search, point)) for point in itertools.product(*axes)]
        return [point for point in points if key_of(point) not in self._known]

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        key = self._running.pop(trial_id, None)
        if trial_id not in self._ot_trials:
            return
        if key is not None and result and not error:
            names = self.metric if isinstance(self.metric, list) else [self.metric]
            if all(result.get(name) is not None for name in names):
                self._known[key] = [result[name] for name in names]
        super().on_trial_complete(trial_id, result, error)

    def observe(self, trial_id: str, epoch: int, figures: dict[str, float | None]) -> None:
        """What a trial reached at the rung ``epoch``; the first counts."""
        self.on_trial_complete(trial_id, {"score": figures.get("ap") or 0.0, "gflops": figures.get("gflops")})

    def lost(self, trial_id: str) -> None:
        """The trial has failed for good."""
        self.on_trial_complete(trial_id, error=True)

    def reject(self, trial_id: str, costs: dict) -> str | None:
        """Nothing is rejected."""

    def state(self) -> dict:
        """What `proposer` takes."""
        return {"pickle": base64.b64encode(cloudpickle.dumps(vars(self))).decode()}


class Known:
    """What is known of a trial before it is trained."""

    costs: dict = {}


def proposer(spec: TuneSpec, manifest: object, state: dict | None) -> Proposer:
    """Who proposes the trials of a search, from its ``state`` if it has begun."""
    made = Proposer(spec)
    if state is not None:
        vars(made).update(cloudpickle.loads(base64.b64decode(state["pickle"])))
    return made


def key_of(values: Values) -> str:
    """The same for equal values, whatever floating point made of them."""
    return json.dumps({path: float(f"{value:.12g}") if isinstance(value, (int, float)) else value
                       for path, value in values.items()}, sort_keys=True, default=str)
