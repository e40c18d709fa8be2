"""Keys of a tune job."""

from typing import Annotated, Any, Literal, Union

import pydantic
from pydantic import Field, WrapValidator, model_validator

from ..jobs.spec import URI, Job, Part, Positive, Seed, shortened
from ..train.spec import TrainSpec


class Uniform(Part):
    """A float between two bounds."""

    uniform: tuple[float, float]

    def bounds(self) -> tuple:
        return self.uniform


class LogUniform(Part):
    """A float between two bounds, uniform in its logarithm."""

    loguniform: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]

    def bounds(self) -> tuple:
        return self.loguniform


class Integer(Part):
    """A whole number, both ends included."""

    integer: tuple[int, int]

    def bounds(self) -> tuple:
        return self.integer


class Quantized(Part):
    """A float between two bounds, in steps: [low, high, step]."""

    quantized: tuple[float, float, Annotated[float, Field(gt=0)]]

    def bounds(self) -> tuple:
        return self.quantized[:2]


class Choice(Part):
    """One of the listed values."""

    choice: Annotated[list[Any], Field(min_length=1)]

    def bounds(self) -> tuple:
        return tuple(self.choice)


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
MAY_CHANGE = ("name", "storage", "max_concurrent_trials", "train.name", "train.storage", "train.dataset",
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
    """ASHA stops no trial before this epoch."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """ASHA keeps one in so many at each rung."""
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
        for path, distribution in self.search.items():
            for value in distribution.bounds():
                try:
                    self.trial({path: value})
                except pydantic.ValidationError as error:
                    first = error.errors()[0]
                    raise ValueError(f"search.{path}: {value} is refused by the train job: {first['msg']}") from None
        return self
