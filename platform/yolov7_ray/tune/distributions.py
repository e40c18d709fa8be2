"""Distributions of searched values, as a job file gives them."""

from collections.abc import Sequence
from typing import Annotated, Any, Union

import pydantic
from pydantic import AfterValidator, Field, WrapValidator, model_validator

from ..jobs.spec import Part, shortened

Finite = Annotated[float, Field(allow_inf_nan=False)]
Above0 = Annotated[Finite, Field(gt=0)]


def _check_order(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"{low:g} is above {high:g}; give [low, high]")


class Uniform(Part):
    """A float between two bounds."""

    uniform: Annotated[tuple[Finite, Finite], AfterValidator(lambda bounds: _check_order(*bounds) or bounds)]

    def bounds(self) -> Sequence:
        return self.uniform

    def values(self) -> None:
        return None


class LogUniform(Part):
    """A float between two bounds, uniform in its logarithm."""

    loguniform: Annotated[tuple[Above0, Above0], AfterValidator(lambda bounds: _check_order(*bounds) or bounds)]

    def bounds(self) -> Sequence:
        return self.loguniform

    def values(self) -> None:
        return None


class Integer(Part):
    """A whole number, both ends included."""

    integer: Annotated[tuple[int, int], AfterValidator(lambda bounds: _check_order(*bounds) or bounds)]

    def bounds(self) -> Sequence:
        return self.values()

    def values(self) -> Sequence:
        return range(self.integer[0], self.integer[1] + 1)


class Quantized(Part):
    """A float between two bounds, in steps: [low, high, step]."""

    quantized: tuple[Finite, Finite, Above0]

    def bounds(self) -> Sequence:
        return self.values()

    def values(self) -> Sequence:
        low, high, step = self.quantized
        return [float(f"{low + step * number:.12g}") for number in range(round((high - low) / step) + 1)]

    @model_validator(mode="after")
    def _check_steps(self) -> "Quantized":
        low, high, step = self.quantized
        _check_order(low, high)
        steps = (high - low) / step
        if abs(steps - round(steps)) > 1e-6:
            raise ValueError(f"steps of {step:g} from {low:g} do not meet {high:g}; give {low + int(steps) * step:g} "
                             "as the upper end")
        return self


def _check_distinct(values: list) -> list:
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise ValueError(f"{shortened(repeated[0])} is given twice; give each value once")
    return values


class Choice(Part):
    """One of the listed values; numbers are taken in their order."""

    choice: Annotated[list[Any], Field(min_length=1), AfterValidator(_check_distinct)]

    def bounds(self) -> Sequence:
        return self.choice

    def values(self) -> Sequence:
        return self.choice


_BY_KEY = {"uniform": Uniform, "loguniform": LogUniform, "choice": Choice, "integer": Integer, "quantized": Quantized}


def _by_its_key(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
    """Validate as the distribution that the value names, so that a validation error concerns that one alone."""
    if isinstance(value, tuple(_BY_KEY.values())):
        return value
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in _BY_KEY:
        raise ValueError(f"{shortened(value)} is no distribution; give one of {{uniform: [low, high]}}, {{loguniform: "
                         "[low, high]}, {choice: [a, b]}, {integer: [low, high]}, {quantized: [low, high, step]}")
    return _BY_KEY[next(iter(value))].model_validate(value)


Distribution = Annotated[Union[Uniform, LogUniform, Integer, Quantized, Choice], WrapValidator(_by_its_key)]
