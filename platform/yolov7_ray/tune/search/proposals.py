"""Which values are tried next: nothing twice, and nothing that breaks a constraint."""

import random
from collections.abc import Callable, Mapping, Sequence

import pydantic

from ...errors import JobError
from ...train.spec import TrainSpec
from ..spec import TuneSpec, reason_of
from .algorithms import DRAW
from .history import Figures, Known, told
from .space import MAX_LISTED, Space, Values, key_of

FINISHED = "FINISHED"
"""Answer of `Proposer.suggest`: there is nothing left to try."""
MAX_REPEATS = 20
"""How many repeats in a row are drawn before a point is chosen among those that are left."""
MAX_REJECTED = 300
"""How many points in a row may break a constraint."""


class Proposer:
    """Proposes the trials of a search. A proposal depends on the seed, on how many were drawn before and on what is
    known, on nothing else: with the same results in the same order, a resumed search proposes what an undisturbed one
    does. `state` is all that has to be kept.
    """

    def __init__(self, spec: TuneSpec, measure: Callable[[TrainSpec], Mapping[str, float]] = lambda job: {}, *,
                 first: Sequence[Values] = (), earlier: Sequence[Known] = (), state: dict | None = None) -> None:
        """``measure``: figures of a model that are known before it is trained. ``first``: points that are proposed
        before all others; ``earlier``: trials of earlier searches, which are told to the algorithm.
        """
        self._spec, self._measure, self._space = spec, measure, Space(spec.search)
        state = state or {"drawn": 0, "first": list(first), "earlier": [known.state() for known in earlier],
                          "trials": {}, "rejected": []}
        self._drawn, self._first = state["drawn"], list(state["first"])
        self._earlier = [Known.of_state(known) for known in state["earlier"]]
        self.trials = {trial: Known.of_state(known) for trial, known in state["trials"].items()}
        """Trial -> what is known of it."""
        self.rejected = [Known.of_state(known) for known in state["rejected"]]
        """Points that break a constraint, or that the train job refuses; they are never trained."""

    def state(self) -> dict:
        """All that a resumed search needs, as JSON."""
        return {"drawn": self._drawn, "first": self._first, "earlier": [known.state() for known in self._earlier],
                "trials": {trial: known.state() for trial, known in self.trials.items()},
                "rejected": [known.state() for known in self.rejected]}

    def suggest(self, trial: str) -> Values | str:
        """Values of a new trial, of a known one those it has; FINISHED: every point has been proposed.

        JobError if no point keeps the constraints.
        """
        if trial in self.trials:
            return self.trials[trial].values
        for _ in range(MAX_REJECTED):
            values = self._new_point()
            if values is None:
                break
            known = Known(values)
            known.costs, known.reason = self._costs(values)
            if known.reason is None:
                self.trials[trial] = known
                return values
            self.rejected.append(known)
        if not self.trials and self.rejected:
            raise JobError("constraints", f"all of {len(self.rejected)} points were rejected; the last: "
                                          f"{self.rejected[-1].reason}", "loosen the constraints or widen the search")
        return FINISHED

    def observe(self, trial: str, epoch: int, figures: Figures) -> None:
        """What a trial reached after so many epochs."""
        self.trials[trial].rungs[epoch] = dict(figures)

    def lost(self, trial: str) -> None:
        """A trial failed for good; its values are not proposed again."""
        self.trials[trial].lost = True

    def reject(self, trial: str, costs: Figures) -> str | None:
        """Figures that were measured where the trial runs -> why it must not be trained, if it must not."""
        known = self.trials[trial]
        known.costs |= costs
        known.reason = broken(self._spec, known.costs)
        return known.reason

    def _new_point(self) -> Values | None:
        """A point that has not been proposed; None if there is none."""
        seen = {key_of(known.values) for known in (*self.trials.values(), *self.rejected)}
        while self._first:
            if key_of(values := self._first.pop(0)) not in seen:
                return values
        if self._space.num_points is not None and len(seen) >= self._space.num_points:
            return None
        everything = told([*self._earlier, *self.trials.values(), *self.rejected], list(self._spec.objectives))
        draw = DRAW[self._spec.algorithm]
        for _ in range(MAX_REPEATS):
            values = draw(self._space, everything, self._spec.objectives, self._spec.constraints, self._rng())
            if key_of(values) not in seen:
                return values
        if self._space.num_points is not None and self._space.num_points <= MAX_LISTED:
            left = [point for point in self._space.points() if key_of(point) not in seen]
            return self._rng().choice(left) if left else None
        drawn = (self._space.draw(self._rng()) for _ in range(MAX_REPEATS))
        return next((values for values in drawn if key_of(values) not in seen), None)

    def _rng(self) -> random.Random:
        """The source of chance of the next draw."""
        self._drawn += 1
        return random.Random(f"{self._spec.seed} {self._drawn}")

    def _costs(self, values: Values) -> tuple[Figures, str | None]:
        """Figures that are known before training, and why the point is rejected."""
        try:
            costs = dict(self._measure(self._spec.trial(values)))
        except pydantic.ValidationError as error:
            return {}, reason_of(error)
        return costs, broken(self._spec, costs)


def broken(spec: TuneSpec, costs: Mapping[str, float | None]) -> str | None:
    """The constraints that figures break, in words; None: they keep all that are known."""
    found = [f"{name} {costs[name]:.4g} is not {bound}" for name, bound in spec.constraints.items()
             if costs.get(name) is not None and not bound.holds(costs[name])]
    return ", ".join(found) or None
