"""Keys of a tune job."""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field, field_validator, model_validator

from ..errors import JobError
from ..jobs import document, validation_errors
from ..jobs.spec import URI, Job, Part, Positive, Seed
from ..train.spec import TrainSpec
from .distributions import Distribution
from .objectives import Constraints, Objectives, default_objectives
from .search.recipe_ranges import recipe_search

MAX_CHECKED = 64
"""Most values of one key that are tried on the train job in advance: from each end half of them."""
MAX_PAIRED = 8
"""The same for each of two keys together."""

JOB_RECORD = "job.json"
"""In a search's directory: the job and the fingerprint of its dataset."""
MAY_CHANGE = ("name", "storage", "budget", "finalists", "retries", "keep_checkpoints", "max_concurrent_trials",
              "train.name", "train.storage", "train.dataset", "train.recipe", "train.resources", "train.checkpoint",
              "train.data.loader_processes", "train.data.cache_dir", "train.data.cache_gb")
"""Keys, and sections of keys, that a resumed search may change; by all others its trials are compared."""
CHANGES_COST = ("model.architecture", "model.depth", "model.width", "data.image_size_px")
"""Keys of a train job by which models differ in cost."""
RECIPE = "recipe"
"""In place of a search: every number of the recipe."""
TRAINED_IN_FULL = ("population", "random", "grid")
"""Algorithms that stop no trial early."""
CHANGES_WITHIN = ("optimizer", "loss", "augment")
"""Sections of a train job whose values a population changes while its trials train, but for `_MOMENTS`."""
_MOMENTS = "optimizer.algorithm"
GENERATIONS = 10
"""How many a population has at least, if its trials have so many epochs."""
DEFAULT_STORAGE = TrainSpec.model_fields["storage"].default
DEFAULTS = "defaults"
"""In `start_with`: the train job's own values."""
_FIXED = {"kind": "is the same for all trials; remove it",
          "name": "names the run; remove it",
          "storage": "is the directory of the search; remove it",
          "recipe": "has filled optimizer, loss and augment before a trial's values are set; search those keys, or "
                    "give search: recipe",
          "epochs": "are decided for each trial by its results; set train.epochs to the most, remove it from search",
          "evaluation.every_epochs": "decides at which epochs trials are compared; remove it",
          "resources": "are the same for all trials; remove it"}
"""Keys, and sections, of the train job that cannot be searched -> why, and what works."""


class Budget(Part):
    """How much a search may take; it ends at the first of these."""

    trials: Positive = 20
    """Most trials that are begun."""
    share: Annotated[float, Field(gt=0, le=1)] | None = 0.25
    """Share of the compute that training every trial in full takes; null: no limit."""
    hours: Annotated[float, Field(gt=0)] | None = None
    """No trial is begun or continued after so many hours; default: no limit."""
    tflops: Annotated[float, Field(gt=0)] | None = None
    """TFLOPS that one GPU, or without GPUs one CPU core, reaches in training: for the hours that --dry-run tells.
    Default: a tenth of the published peak."""


class Finalists(Part):
    """What is trained in full after the search."""

    count: Positive = 3
    """How many trials of the front, the best first."""
    epochs: Positive | None = None
    """Epochs of each; default: those of the train job."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """Trainings of each, with seeds one above the other, so that means and spreads are known."""


Search = Annotated[dict[str, Distribution], Field(min_length=1)]


def _train_job(value: Any) -> Any:
    """A train job's keys; a path or URI is read."""
    if not isinstance(value, str):
        return value
    try:
        values = document.read(value)
    except JobError as error:
        raise ValueError(f"'{error.where}' is not read: {error.problem}; {error.remedy}") from None
    try:
        return TrainSpec.model_validate(values)
    except pydantic.ValidationError as error:
        found = validation_errors.job_error(error, values, TrainSpec.model_json_schema(), f"in {value}")
        raise ValueError(str(found)) from None


class TuneSpec(Job):
    """A train job x search space -> trials, the front of what they reach, and the best configuration."""

    kind: Literal["tune"]
    train: Annotated[TrainSpec, BeforeValidator(_train_job, json_schema_input_type=TrainSpec | str)]
    """The job that each trial runs, with the trial's values set: its keys, or the path or URI of its file."""
    search: Search
    """Dotted path of the train job -> distribution, e.g. optimizer.learning_rate: {loguniform: [1e-3, 1e-1]}. Or the
    word recipe: every number of optimizer, loss and augment, in ranges that ship."""
    objectives: Objectives = default_objectives(False)
    """Figures that are weighed -> max or min: ap, ap50, ap75, ap_small, ap_medium, ap_large, ap/CLASS, latency_ms,
    latency_batch_ms, gflops, parameters. Default: ap, and gflops if the search changes them."""
    constraints: Constraints = {}
    """Bounds that a model must keep, e.g. parameters: "<= 3e6"; one that does not is never trained."""
    budget: Budget = Budget()
    algorithm: Literal["promote", "evolve", "population", "random", "grid"] = "promote"
    """promote: Optuna's TPE proposes; evolve: the best ones have mutated children. Both train trials from rung to rung,
    the promising ones further, within budget.share. random, and grid, which is every point: each is trained in full.
    population: so are all, and those that fall behind go on from better ones' weights with values near to theirs."""
    perturb_every_epochs: Positive | None = None
    """Of a population: after so many epochs trials are compared, and values change. Default: a tenth of the epochs."""
    start_with: list[URI] = [DEFAULTS]
    """What is known before the search: defaults, the train job's own values; directories of earlier searches."""
    finalists: Finalists | None = None
    """Default: none."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial that was lost is tried again."""
    keep_checkpoints: Literal["front", "all"] = "front"
    """front: those of trials that others dominate are removed."""
    storage: URI = "runs"
    max_concurrent_trials: Positive | None = None
    """Default: as many as the cluster holds."""
    grace_epochs: Positive = 1
    """Trials are compared first at this epoch."""
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

    def alone(self, values: dict[str, Any]) -> TrainSpec:
        """The train job of a trial, to train on its own: in the train job's storage, with the epochs of finalists."""
        changes: dict[str, Any] = {}
        if self.train.storage != DEFAULT_STORAGE:
            changes["storage"] = self.train.storage
        if self.finalists and self.finalists.epochs:
            changes["epochs"] = self.finalists.epochs
        return self.trial(values).model_copy(update=changes)

    def is_valid(self, values: dict[str, Any]) -> bool:
        """Whether the train job accepts the values of a trial together."""
        try:
            self.trial(values)
        except pydantic.ValidationError:
            return False
        return True

    @property
    def trains_in_full(self) -> bool:
        """Whether no trial is stopped early, so that budget.share has no effect."""
        return self.algorithm in TRAINED_IN_FULL

    @property
    def share(self) -> float:
        """Of the full sweep's compute, what this search may take."""
        return 1.0 if self.trains_in_full else self.budget.share or 1.0

    @property
    def generation_epochs(self) -> int:
        """Epochs of one generation of a population; its trials are evaluated at its end."""
        every = self.train.evaluation.every_epochs
        return self.perturb_every_epochs or every * max(1, self.train.epochs // (GENERATIONS * every))

    @property
    def searches_architecture(self) -> bool:
        """Whether trials differ in cost."""
        return any(path in CHANGES_COST for path in self.search)

    @field_validator("search", mode="before", json_schema_input_type=Search | Literal[RECIPE])
    @classmethod
    def _recipe(cls, search: Any, info: pydantic.ValidationInfo) -> Any:
        if isinstance(search, str) and search != RECIPE:
            raise ValueError(f"'{search}' does not fit; give a section of keys, or {RECIPE}")
        if search != RECIPE:
            return search
        train = info.data.get("train")  # None: not valid, which is an error of its own
        return recipe_search(train) if train else {"seed": {"choice": [0]}}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if "trials" in values:
            raise ValueError(f"trials: has moved into the budget; give budget: {{trials: {values['trials']}}}, or "
                             f"--set budget.trials={values['trials']}")
        search = values.get("search")
        if values.get("objectives") is None and isinstance(search, dict):
            values = values | {"objectives": default_objectives(any(path in CHANGES_COST for path in search))}
        return values

    @model_validator(mode="after")
    def _check_search(self) -> "TuneSpec":
        if self.train.is_open:
            raise ValueError(f"train.job: {self.train.job} is known after that step alone; give the path of a file")
        if isinstance(self.train.resources.workers, tuple):
            raise ValueError(f"train.resources.workers: {list(self.train.resources.workers)} would change within a "
                             "trial; give one number, trials share the cluster as it is")
        if self.train.recipe == "auto":
            raise ValueError("train.recipe: auto is chosen by the dataset when a training starts, and a search lays values "
                             "over a known recipe; give small, which auto is below 2 million images x epochs, or another")
        if self.train.early_stopping_epochs is not None:
            raise ValueError(f"train.early_stopping_epochs: {self.train.early_stopping_epochs} would end trials that the "
                             "search pauses and goes on with; leave it out")
        if self.grace_epochs > self.train.epochs:
            raise ValueError(f"grace_epochs: {self.grace_epochs} is more than the {self.train.epochs} epochs of a "
                             "trial, so that none would be stopped early; give less, or the same to stop none")
        if self.algorithm == "grid":
            self._check_grid()
        if self.algorithm == "population":
            self._check_population()
        elif self.perturb_every_epochs is not None:
            raise ValueError(f"perturb_every_epochs: belongs to algorithm population, this one is {self.algorithm}; "
                             "remove it, or give algorithm: population")
        if self.finalists and self.finalists.epochs:
            self._check_epochs(self.finalists.epochs)
        for path, distribution in self.search.items():
            for key, reason in _FIXED.items():
                if (path + ".").startswith(key + "."):
                    raise ValueError(f"search.{path}: {reason}")
            for value in ends(distribution.bounds(), MAX_CHECKED):
                self._check_values({path: value})
        for pair in itertools.combinations(self.search, 2):
            for values in itertools.product(*(ends(self.search[path].bounds(), MAX_PAIRED) for path in pair)):
                self._check_values(dict(zip(pair, values)))
        return self

    def _check_grid(self) -> None:
        """ValueError if a key has no list of values, or there are more points than trials."""
        values = {path: distribution.values() for path, distribution in self.search.items()}
        for path, listed in values.items():
            if listed is None:
                raise ValueError(f"search.{path}: takes any number, and algorithm grid needs values; give it as "
                                 "choice, integer or quantized, or another algorithm")
        points = math.prod(map(len, values.values()))
        if points > self.budget.trials:
            raise ValueError(f"budget.trials: {self.budget.trials} are fewer than the {points:,} points of the grid; "
                             f"give {points}, fewer values, or another algorithm")

    def _check_population(self) -> None:
        """ValueError unless values can change within a trial, there are generations, and others to go on from."""
        fixed = [path for path in self.search if path == _MOMENTS or path.partition(".")[0] not in CHANGES_WITHIN]
        if fixed:
            raise ValueError(f"search: {', '.join(fixed)} cannot change while a model trains; algorithm population "
                             f"searches {', '.join(CHANGES_WITHIN)} without {_MOMENTS}; remove the others or give "
                             "another algorithm")
        if self.budget.trials < 2:
            raise ValueError(f"budget.trials: {self.budget.trials} has no other to learn from; give 2 or more, for "
                             "algorithm population usually 20")
        if self.finalists:
            raise ValueError("finalists: are trained with values that do not change, those of a population do; remove "
                             "them or give another algorithm")
        epochs, every, given = self.train.epochs, self.train.evaluation.every_epochs, self.generation_epochs
        if given % every:
            raise ValueError(f"perturb_every_epochs: {given} meet no evaluation, of which there is one every {every} "
                             f"epochs; give a multiple of that, e.g. {-(-given // every) * every}")
        if given >= epochs:
            raise ValueError(f"perturb_every_epochs: after {given} epochs nothing is left of the {epochs} of a trial; "
                             "give less, or more train.epochs")

    def _check_epochs(self, epochs: int) -> None:
        """ValueError if the train job refuses so many."""
        try:
            TrainSpec.model_validate(self.train.model_dump(mode="json") | {"epochs": epochs})
        except pydantic.ValidationError as error:
            raise ValueError(f"finalists.epochs: {epochs} is refused by the train job: {reason_of(error)}") from None

    def _check_values(self, values: dict[str, Any]) -> None:
        """ValueError if the train job refuses them."""
        try:
            self.trial(values)
        except pydantic.ValidationError as error:
            named = " with ".join(f"{path}: {value}" for path, value in values.items())
            raise ValueError(f"search.{named} is refused by the train job: {reason_of(error)}") from None


def reason_of(error: pydantic.ValidationError) -> str:
    """The first reason, in the words of our validators."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def ends(values: Sequence, most: int) -> list:
    """At most so many of ``values``, from both ends."""
    return list(values) if len(values) <= most else [*values[:most // 2], *values[-(most // 2):]]
