"""A kind of job: one object in the package that does the work, and one line in `kinds.KINDS`.

A kind's module, ``job.py``, and its specification, ``spec.py``, are imported to validate a job file, so they import
neither torch nor Ray; methods that need them import them when they are called.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from .. import storage
from ..cluster.resources import Demand
from .spec import REFERENCE, Job, UriPath, uris_in

Spec = TypeVar("Spec", bound=Job)
Line = tuple[str, str]
"""A line of the dry run: its key and its text."""


@dataclass(frozen=True)
class ExpectedDataset:
    """A dataset that an earlier step of a pipeline will have made."""

    uri: str
    splits: tuple[str, ...]
    """Empty: known after the step."""
    num_images: dict[str, int] = field(default_factory=dict)
    """Images of each split, if known in advance."""
    classes: tuple[str, ...] | None = None
    """None: known after the step."""


@dataclass
class Upcoming:
    """What the earlier steps of a pipeline will have made."""

    datasets: dict[str, ExpectedDataset] = field(default_factory=dict)
    """By absolute URI, and by ``${step.dataset}``."""
    steps: set[str] = field(default_factory=set)
    unreachable: dict[str, str] = field(default_factory=dict)
    """URI -> why it cannot be reached from here: what lies there is unknown, not missing."""

    def dataset(self, uri: str) -> ExpectedDataset | None:
        """The dataset of that URI or reference, if an earlier step makes it."""
        return self.datasets.get(uri) or self.datasets.get(storage.absolute(uri))

    def makes(self, text: str) -> bool:
        """Whether ``text`` is, or refers to, something that an earlier step makes."""
        return self.dataset(text) is not None or any(step in self.steps for step, _ in REFERENCE.findall(text))

    def add(self, name: str, kind: "JobKind", spec: Job) -> None:
        """Count a step as run."""
        self.steps.add(name)
        for dataset in kind.datasets_made(spec):
            self.datasets[storage.absolute(dataset.uri)] = self.datasets[f"${{{name}.dataset}}"] = dataset


class JobKind(ABC, Generic[Spec]):
    """Base of all kinds; a kind overrides what differs."""

    spec: ClassVar[type[Job]]
    """Its keys in a job file; the docstring is its one line of help."""
    outputs: ClassVar[Mapping[str, str]] = {}
    """Keys of the result of `run` that later steps of a pipeline can refer to -> what each is: dataset, model, …"""
    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dataset": ("dataset",), "model": ("model",), "weights": ("model",), "models": ("models",), "job": ("job",)}
    """Keys of its section -> what outputs they may refer to; all others take any."""
    example: ClassVar[dict[str, Any]]
    """Uncommented values of its starter file: just enough to be valid."""
    shown: ClassVar[dict[str, Any]] = {}
    """Values over the example's, with which its starter file shows what is left to defaults."""
    stays_up: ClassVar[bool] = False
    """Whether what it starts keeps running, with its resources, after the job; a resumed pipeline starts it again."""

    plans_unreachable: ClassVar[bool] = False
    """Whether its dry run tells what it can where a URI is in `Upcoming.unreachable`; otherwise it is left out then."""

    @abstractmethod
    def run(self, spec: Spec, run_name: str) -> dict[str, Any]:
        """Do the work on the running Ray; return the outputs."""

    def demand(self, spec: Spec) -> Demand:
        """Cluster resources that it holds at the same time."""
        return Demand(1, 1, 0, "1 task")

    def check_inputs(self, spec: Spec, upcoming: Upcoming) -> None:
        """JobError if an input does not exist and no earlier step makes it; called before Ray starts."""

    def check_resume(self, spec: Spec, run_name: str) -> list[str]:
        """What differs from the job that the run was started with, as ``key: before -> now``.

        JobError if the run cannot go on with this job. Called before Ray starts; writes nothing.
        """
        return []

    def dry_run(self, spec: Spec, upcoming: Upcoming) -> list[Line]:
        """What it would do and cost; JobError if it could not run."""
        return []

    def sent(self, spec: Spec) -> Spec:
        """The job as it is sent to a cluster: what only this machine knows is filled in, or a JobError names it."""
        return spec

    def next_command(self, spec: Spec, outputs: dict[str, Any]) -> str:
        """The command that usually follows; empty if there is none."""
        return ""

    def datasets_made(self, spec: Spec) -> list[ExpectedDataset]:
        """The datasets that it writes."""
        return []

    def jobs_made(self, spec: Spec) -> dict[str, Job]:
        """Outputs that are job files -> a job as it will be in the file."""
        return {}

    def uris(self, spec: Spec) -> Iterator[tuple[UriPath, str]]:
        """(path, value) of every URI that it reads or writes; references to outputs of earlier steps are left out."""
        return uris_in(spec)

    def run_directory(self, spec: Spec, run_name: str) -> str | None:
        """Where a run keeps its state; None if it keeps none and so cannot be resumed."""
        return storage.join(spec.storage, run_name) if hasattr(spec, "storage") else None

    def steps(self, spec: Spec) -> dict[str, Job]:
        """The jobs that it consists of, by name; a single one without a name unless it is a pipeline."""
        return {"": spec}
