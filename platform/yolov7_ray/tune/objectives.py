"""Figures that a search weighs and bounds."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

Direction = Literal["max", "min"]
ACCURACIES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
"""Measured after training; `CLASS_PREFIX` CLASS is the AP of one class."""
CLASS_PREFIX = "ap/"
COSTS = ("latency_ms", "latency_batch_ms", "gflops", "parameters")
"""Known before a trial is trained."""
LATENCIES = COSTS[:2]
"""Those that must be measured on the machine."""


def is_accuracy(figure: str) -> bool:
    """Whether it is known only from evaluations."""
    return figure in ACCURACIES or figure.startswith(CLASS_PREFIX) and len(figure) > len(CLASS_PREFIX)


def default_objectives(changes_cost: bool) -> dict[str, Direction]:
    """AP, and FLOPs if trials differ in them."""
    return {"ap": "max"} | ({"gflops": "min"} if changes_cost else {})


def _check_objectives(objectives: dict[str, Direction]) -> dict[str, Direction]:
    for figure, direction in objectives.items():
        if not is_accuracy(figure) and figure not in COSTS:
            raise ValueError(f"{figure}: is no figure of a trial; choose {', '.join(ACCURACIES)}, {CLASS_PREFIX}CLASS, "
                             f"{', '.join(COSTS)}")
        if direction != (works := "max" if is_accuracy(figure) else "min"):
            raise ValueError(f"{figure}: {direction} looks for the worst; give {works}")
    if not any(map(is_accuracy, objectives)):
        raise ValueError(f"{', '.join(objectives) or 'nothing'} is known without training; give one of "
                         f"{', '.join(ACCURACIES)}, {CLASS_PREFIX}CLASS as well")
    return objectives


Objectives = Annotated[dict[str, Direction], AfterValidator(_check_objectives)]


@dataclass(frozen=True)
class Constraint:
    """A bound of a figure: at most, or at least, ``limit``."""

    relation: Literal["<=", ">="]
    limit: float

    def holds(self, value: float) -> bool:
        """Whether a figure is within the bound; the bound itself is."""
        return self.violation(value) <= 0

    def violation(self, value: float) -> float:
        """How far a figure is beyond the bound, in its unit; at most 0 within it."""
        return value - self.limit if self.relation == "<=" else self.limit - value

    def __str__(self) -> str:
        return f"{self.relation} {self.limit:.12g}"


def _constraint(value: Any) -> Constraint:
    if isinstance(value, Constraint):
        return value
    found = re.fullmatch(r"\s*(<=|>=)\s*(\d+\.?\d*(?:[eE][-+]?\d+)?)\s*", value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f"{value!r:.60} is no bound; give one in quotes such as '<= 3e6' or '>= 10'")
    return Constraint(found[1], float(found[2]))


Bound = Annotated[Constraint, PlainValidator(_constraint), PlainSerializer(str),
                  WithJsonSchema({"type": "string", "pattern": r"^\s*(<=|>=)\s*\d+\.?\d*([eE][-+]?\d+)?\s*$"})]


def _check_constraints(constraints: dict[str, Constraint]) -> dict[str, Constraint]:
    for figure in constraints:
        if figure not in COSTS:
            arrived = "is known only after training" if is_accuracy(figure) else "is no figure of a trial"
            raise ValueError(f"{figure}: {arrived}; choose {', '.join(COSTS)}")
    return constraints


Constraints = Annotated[dict[str, Bound], AfterValidator(_check_constraints)]
