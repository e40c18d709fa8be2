"""What a search knows of its trials, and what of it the algorithms are told."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from ..objectives import Constraint, is_accuracy
from .space import Values

ENOUGH = 10
"""How many trials have to be known at one epoch before an algorithm learns from them."""
Figures = dict[str, float | None]


@dataclass
class Known:
    """One point that was proposed, and what came of it."""

    values: Values
    costs: Figures = field(default_factory=dict)
    """Figures that do not change with training."""
    rungs: dict[int, Figures] = field(default_factory=dict)
    """Epochs -> figures after so many."""
    reason: str | None = None
    """Why it breaks a constraint, or cannot be built."""
    lost: bool = False
    """Whether it failed for good."""

    @classmethod
    def of_state(cls, state: dict) -> "Known":
        return cls(**state | {"rungs": {int(epoch): figures for epoch, figures in state["rungs"].items()}})

    def state(self) -> dict:
        """What is kept in storage."""
        return asdict(self)

    def objectives(self, names: Sequence[str], epoch: int | None) -> list[float]:
        """Its objectives after so many epochs; an accuracy that is unknown counts 0."""
        figures = self.costs | self.rungs.get(epoch, {})
        return [figures.get(name) or 0.0 for name in names]

    def violations(self, constraints: Mapping[str, Constraint]) -> dict[str, float]:
        """How far each figure is beyond its bound, as a part of it; 1 for what cannot be built at all."""
        found = {name: bound.violation(self.costs[name]) / abs(bound.limit or 1)
                 for name, bound in constraints.items() if self.costs.get(name) is not None}
        return found if self.reason is None or any(part > 0 for part in found.values()) else found | {"built": 1.0}


@dataclass(frozen=True)
class Told:
    """Trials as an algorithm is told them: those known after one same number of epochs, the others, the rejected."""

    epoch: int | None
    compared: list[Known]
    others: list[Known]
    """Not trained so far: they run, or others were promoted before them. They count as worse."""
    rejected: list[Known]


def told(known: Sequence[Known], names: Sequence[str]) -> Told:
    """One fidelity: the most epochs at which `ENOUGH` trials are known. An AP after few epochs is not compared with
    one after many, and the trials that did not get so far are taken as worse than those that did.
    """
    tried = [trial for trial in known if not trial.lost and trial.reason is None]
    rejected = [trial for trial in known if trial.reason is not None]
    learnt = [name for name in names if is_accuracy(name)]
    at = {epoch: [trial for trial in tried if any(trial.rungs.get(epoch, {}).get(name) is not None for name in learnt)]
          for epoch in {epoch for trial in tried for epoch in trial.rungs}}
    epoch = max((epoch for epoch, trials in at.items() if len(trials) >= ENOUGH), default=None)
    compared = at.get(epoch, [])
    return Told(epoch, compared, [trial for trial in tried if not any(trial is one for one in compared)], rejected)
