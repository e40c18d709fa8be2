"""What differs between runs: warnings, figures, classes, jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from ...errors import JobError
from ...jobs.kinds import kind_named
from ...jobs.page.figures import number
from ...jobs.resumption import changes, resolved
from .run import Run, read

MAX_RUNS = 8
"""More lines in a chart look alike."""
SHARES = (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"), ("AP small", "ap_small"), ("AP medium", "ap_medium"),
          ("AP large", "ap_large"))
MAX_CLASSES = 5
"""Named in a warning."""


@dataclass(frozen=True)
class OfClass:
    """One class in all runs."""

    name: str
    objects: int
    """In the first run that knows it."""
    ap: tuple[float | None, ...]
    """Of each run."""

    @property
    def differences(self) -> list[float | None]:
        """Of each run to the first."""
        return [difference(value, self.ap[0]) for value in self.ap]


def read_all(uris: Sequence[str]) -> list[Run]:
    """The runs, A, B, …; JobError if they are not 2 to 8, or one cannot be compared."""
    if not 2 <= len(uris) <= MAX_RUNS:
        raise JobError("compare", f"{len(uris)} run{'s' * (len(uris) > 1)} given", f"give 2 to {MAX_RUNS}")
    return [read(uri, letter) for uri, letter in zip(uris, ascii_uppercase)]


def difference(value: float | None, first: float | None) -> float | None:
    """Between two figures; None where one is unknown."""
    return None if value is None or first is None else value - first


def signed(change: float) -> str:
    """A difference, with three digits."""
    return f"{round(change, 3) + 0.0:+.3f}"  # + 0.0: no -0.000


def shares(runs: Sequence[Run]) -> list[tuple[str, list[float | None]]]:
    """Name and value in each run of the figures between 0 and 1."""
    return [(name, [run.figures.get(key) for run in runs]) for name, key in SHARES]


def costs(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Name and text for each run of all other figures."""
    return [("parameters", [number(run.results.get("parameters")) for run in runs]),
            ("GFLOPs", [number(run.results.get("gflops")) for run in runs]),
            ("epochs", [run.epochs for run in runs]),
            ("images/s", [number(run.images_per_s) for run in runs])]


def by_class(runs: Sequence[Run]) -> list[OfClass]:
    """Every class that a run has figures of, those that differ most first."""
    names = dict.fromkeys(name for run in runs for name in run.classes)
    found = [OfClass(name, next(run.classes[name]["num_truth"] for run in runs if name in run.classes),
                     tuple(run.classes.get(name, {}).get("ap") for run in runs)) for name in names]
    return sorted(found, key=lambda one: max((abs(by) for by in one.differences if by is not None), default=-1.0), reverse=True)


def of_jobs(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Key and value in each run of what differs between jobs of one kind; None where a job does not have it."""
    specs = [resolved(kind_named(run.spec["kind"]).spec, run.spec) for run in runs]
    firsts = {spec["kind"]: spec for spec in reversed(specs)}
    found = dict.fromkeys(change.key for spec in specs for change in changes(firsts[spec["kind"]], spec))
    return [(key, [_value(spec, key) for spec in specs]) for key in found]


def alike(runs: Sequence[Run]) -> str:
    """What to say where nothing differs between the jobs."""
    return "the jobs do not differ" if len({run.spec["kind"] for run in runs}) == 1 else (
        "jobs of different kinds are not compared key by key; those of one kind do not differ")


def warnings(runs: Sequence[Run]) -> list[str]:
    """Why the figures may not compare."""
    found = []
    places, fingerprints = {run.dataset for run in runs}, {run.fingerprint for run in runs}
    if len(fingerprints - {None}) > 1 or None in fingerprints and len(places) > 1:
        found.append("the datasets differ, so the figures are of different images: " + ", ".join(
            f"{run.letter} {run.dataset} ({run.fingerprint[:12] if run.fingerprint else 'fingerprint not kept'})"
            for run in runs))
    if len({run.split for run in runs}) > 1:
        found.append("the splits differ, so the figures are of different images: " + ", ".join(
            f"{run.letter} {run.split}" for run in runs))
    shared = set.intersection(*(set(run.class_names) for run in runs))
    own = {run.letter: [name for name in run.class_names if name not in shared] for run in runs}
    if any(own.values()):
        found.append("the classes differ; those that not all know: " + "; ".join(
            f"{letter} {', '.join(names[:MAX_CLASSES])}" + f" and {len(names) - MAX_CLASSES} more" * (len(names) > MAX_CLASSES)
            for letter, names in own.items() if names))
    return found


def of_which_epochs(runs: Sequence[Run]) -> str:
    """What the figures of classes are of, in words."""
    return "of the last evaluation: " + ", ".join(
        f"{run.letter} {'not kept' if not run.classes else f'epoch {run.last_evaluated}' if run.rows else run.split}"
        for run in runs)


def _value(document: Any, key: str) -> Any:
    for name in key.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document
