"""One axis of a chart: from values to places, and its ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .figures import number

MARGIN = 0.05
"""Free space at both ends, as a share of the axis."""
MOST_TICKED = 6
FAR = 5
"""Ratio of the ends from which on a logarithmic axis shows more."""


@dataclass(frozen=True)
class Axis:
    """Values -> [0, 1]."""

    low: float
    high: float
    log: bool = False
    whole: bool = False
    """Whether only whole numbers are ticks."""
    at: tuple[float, ...] = ()
    """The ticks, if they are given."""
    categories: tuple[str, ...] = ()
    """Texts in order, for an axis without numbers: the value of each is its index."""

    @classmethod
    def of(cls, values: Sequence[Any], log: bool = False, zero: bool = False, whole: bool = False) -> "Axis":
        """An axis that holds all of ``values``; those that are no numbers become categories.

        ``log``: logarithmic if they lie far enough apart. ``zero``: it begins there.
        """
        values = [value for value in values if value is not None]
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            names = tuple(dict.fromkeys(map(str, values)))
            return cls(-0.5, len(names) - 0.5, categories=names)
        low, high = min(values, default=0.0), max(values, default=1.0)
        log = log and 0 < low * FAR < high
        low, high = (math.log10(low), math.log10(high)) if log else (min(low, 0.0) if zero else low, high)
        free = (high - low) * MARGIN or abs(high) * MARGIN or 0.5
        return cls(low if zero else low - free, high + free, log, whole)

    def ticked(self, values: Sequence[Any] | None) -> "Axis":
        """The same with ticks at these values alone, if they are a few numbers."""
        return replace(self, at=tuple(values)) if values and len(values) <= MOST_TICKED and not self.categories and all(
            isinstance(value, int | float) for value in values) else self

    def place(self, value: Any) -> float:
        """Where a value is, 0 at the low end."""
        if self.categories:
            value = self.categories.index(str(value))
        elif self.log:
            value = math.log10(value)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """(place, text) of at most about so many round values."""
        if self.categories:
            every = -(-len(self.categories) // most)
            return [(self.place(name), name) for name in self.categories[::every]]
        return [(self.place(value), number(value)) for value in self.at or self._round_values(most)]

    def _round_values(self, most: int) -> list[float]:
        """Values for ticks."""
        return _decades(self.low, self.high, most) if self.log else _rounds(self.low, self.high, most, self.whole)


def _rounds(low: float, high: float, most: int, whole: bool) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within the ends."""
    raw = max(1.0, (high - low) / most) if whole else (high - low) / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def _decades(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone where that is too many."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0 ** power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors
                 if low - 1e-9 <= math.log10(factor * 10.0 ** power) <= high + 1e-9]
        if len(found) <= most + 1:
            break
    return found[::-(-len(found) // (most + 1)) or 1]
