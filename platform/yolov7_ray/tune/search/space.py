"""The search space as axes: what Optuna and the other algorithms draw from, and back to values of a job file."""

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..distributions import Choice, Distribution, LogUniform

Values = dict[str, Any]
"""Dotted path -> value of one trial."""
MAX_LISTED = 100_000
"""Most points of a space that are listed."""


@dataclass(frozen=True)
class Axis:
    """The values of one key. Discrete ones are known by their number, in their order if they have one."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    values: Sequence | None = None
    """None: all floats from ``low`` to ``high``."""
    ordered: bool = True

    @classmethod
    def of(cls, distribution: Distribution) -> "Axis":
        """Numbers are ordered, in whatever order a choice lists them."""
        values = distribution.values()
        if values is None:
            low, high = distribution.bounds()
            return cls(low, high, isinstance(distribution, LogUniform))
        if not isinstance(distribution, Choice):
            return cls(values=values)
        ordered = all(_is_number(value) for value in values)
        return cls(values=sorted(values) if ordered else list(values), ordered=ordered)

    def position(self, value: Any) -> float:
        """Of a value, in [0, 1] along the axis; of a discrete one the middle of its interval."""
        if self.values is not None:
            return (self.values.index(value) + 0.5) / len(self.values)
        low, high, value = map(math.log if self.log else float, (self.low, self.high, value))
        return (value - low) / (high - low) if low < high else 0.5

    def at(self, position: float) -> Any:
        """The value at a position, which is clipped to [0, 1]."""
        position = min(1.0, max(0.0, position))
        if self.values is not None:
            return self.values[min(len(self.values) - 1, int(position * len(self.values)))]
        low, high = map(math.log if self.log else float, (self.low, self.high))
        value = low + position * (high - low)
        return min(self.high, max(self.low, math.exp(value) if self.log else value))

    def nearest(self, value: Any) -> Any | None:
        """The value of the axis that is nearest to any value; None if that has no place on it."""
        if not self.ordered:
            return value if value in self.values else None
        if not _is_number(value):
            return None
        if self.values is None:
            return min(self.high, max(self.low, float(value)))
        return min(self.values, key=lambda known: abs(known - value))


class Space:
    """All axes of a search."""

    def __init__(self, search: Mapping[str, Distribution]) -> None:
        self.axes = {path: Axis.of(distribution) for path, distribution in search.items()}

    @property
    def num_points(self) -> int | None:
        """None: a key takes any float."""
        if any(axis.values is None for axis in self.axes.values()):
            return None
        return math.prod(len(axis.values) for axis in self.axes.values())

    def points(self) -> Iterator[Values]:
        """Every point of a discrete space."""
        for point in itertools.product(*(axis.values for axis in self.axes.values())):
            yield dict(zip(self.axes, point))

    def draw(self, rng: random.Random) -> Values:
        """A point, every one as likely."""
        return {path: axis.at(rng.random()) for path, axis in self.axes.items()}

    def contains(self, values: Values) -> bool:
        """Whether each value lies on its axis."""
        return all(path in values and axis.nearest(values[path]) == values[path] for path, axis in self.axes.items())


def key_of(values: Values) -> str:
    """The same for equal values, whatever floating point made of them."""
    return json.dumps({path: float(f"{value:.12g}") if _is_number(value) else value for path, value in values.items()},
                      sort_keys=True, default=str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
