"""Keys of a tune job."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union

import pydantic
from pydantic import AfterValidator, Field, WrapValidator, model_validator

from ..jobs.spec import URI, Job, Part, Positive, Seed, shortened
from ..train.spec import TrainSpec

Finite = Annotated[float, Field(allow_inf_nan=False)]
Above0 = Annotated[Finite, Field(gt=0)]
MAX_CHECKED = 64
"""Most values of one key that are tried on the train job in advance: from each end half of them."""
MAX_PAIRED = 8
"""The same for each of two keys together."""


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


class Choice(Part):
    """One of the listed values."""

    choice: Annotated[list[Any], Field(min_length=1)]

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


JOB_RECORD = "job.json"
"""In a search's directory: the job and the fingerprint of its dataset."""
MAY_CHANGE = ("name", "storage", "trials", "max_concurrent_trials", "train.name", "train.storage", "train.dataset",
              "train.recipe", "train.resources", "train.checkpoint", "train.data.loader_processes",
              "train.data.cache_dir", "train.data.cache_gb")
"""Keys, and sections of keys, that a resumed search may change; by all others its trials are compared."""


class TuneSpec(Job):
    """A train job x search space -> trials, the best configuration and the front AP against FLOPs."""

    kind: Literal["tune"]
    train: TrainSpec
    """The job that each trial runs, with the trial's values set."""
    search: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Dotted path of the train job -> distribution, e.g. optimizer.learning_rate: {loguniform: [1e-3, 1e-1]}."""
    storage: URI = "runs"
    trials: Positive = 20
    max_concurrent_trials: Positive | None = None
    """Default: as many as the cluster holds."""
    grace_epochs: Positive = 1
    """Trials are compared, and the worse ones stopped, first at this epoch."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on at each rung; the next rung is at so many times the epochs."""
    seed: Seed = 0

    def trial(self, values: dict[str, Any]) -> TrainSpec:
        """The train job with the values of one trial set, validated again."""
        document = self.train.model_dump(mode="json") | {"storage": self.storage}
        for path, value in values.items():
            section, keys = document, path.split(".")
            for key in keys[:-1]:
                section = section.get(key) if isinstance(section, dict) else None
            if not isinstance(section, dict) or keys[-1] not in section:
                raise ValueError(f"search.{path}: is no key of the train job; "
                                 "give a dotted path such as optimizer.learning_rate or model.width")
            section[keys[-1]] = value
        return TrainSpec.model_validate(document)

    @property
    def searches_architecture(self) -> bool:
        """Whether trials differ in cost, so that AP is weighed against FLOPs."""
        return any(path.startswith("model.") or path == "data.image_size_px" for path in self.search)

    @model_validator(mode="after")
    def _check_search(self) -> "TuneSpec":
        if isinstance(self.train.resources.workers, tuple):
            raise ValueError(f"train.resources.workers: {list(self.train.resources.workers)} would change within a "
                             "trial; give one number, trials share the cluster as it is")
        if self.grace_epochs > self.train.epochs:
            raise ValueError(f"grace_epochs: {self.grace_epochs} is more than the {self.train.epochs} epochs of a "
                             "trial, so that none would be stopped early; give less, or the same to stop none")
        for path, distribution in self.search.items():
            for value in ends(distribution.bounds(), MAX_CHECKED):
                self._check_values({path: value})
        for pair in itertools.combinations(self.search, 2):
            for values in itertools.product(*(ends(self.search[path].bounds(), MAX_PAIRED) for path in pair)):
                self._check_values(dict(zip(pair, values)))
        return self

    def _check_values(self, values: dict[str, Any]) -> None:
        """ValueError if the train job refuses them."""
        try:
            self.trial(values)
        except pydantic.ValidationError as error:
            named = " with ".join(f"{path}: {value}" for path, value in values.items())
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"search.{named} is refused by the train job: {reason}") from None


def ends(values: Sequence, most: int) -> list:
    """At most so many of ``values``, from both ends."""
    return list(values) if len(values) <= most else [*values[:most // 2], *values[-(most // 2):]]
