"""The best of a search, trained in full with several seeds: which they are, and which of them is best."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..train.spec import TrainSpec
from .objectives import COSTS, is_accuracy
from .search.fronts import ranked
from .spec import TuneSpec

Row = Mapping[str, Any]
Figures = Mapping[str, float | None]


def chosen(spec: TuneSpec, rows: Sequence[Row]) -> list[Row]:
    """The rows of trials.json that become finalists, the best first: the front, spread over its length, and if that is
    short what would be the front without it. Only trials of the most epochs are compared.
    """
    known = [row for row in rows if not row.get("error") and all(
        row["figures"].get(name) is not None for name in spec.objectives)]
    most = max((row["epochs"] for row in known), default=None)
    known = [row for row in known if row["epochs"] == most]
    names = sorted(spec.objectives, key=is_accuracy, reverse=True)  # the best end is that of the first accuracy
    points = [[row["figures"][name] for name in names] for row in known]
    order = ranked(points, [spec.objectives[name] for name in names])
    return [known[index] for index in order[:spec.finalists.count if spec.finalists else 0]]


def finalists(spec: TuneSpec, rows: Sequence[Row]) -> list[tuple[str, TrainSpec]]:
    """(name, job) of every training that follows the search: TRIAL-seed-N, so many for each of the chosen trials."""
    jobs = []
    for row in chosen(spec, rows):
        for number in range(spec.finalists.seeds):
            job = spec.trial(row["values"])
            name = name_of(row["trial"], job.seed + number)
            given = {"name": name, "epochs": spec.finalists.epochs or job.epochs, "seed": job.seed + number}
            jobs.append((name, TrainSpec.model_validate(job.model_dump(mode="json") | given)))
    return jobs


def name_of(trial: str, seed: int) -> str:
    """Name of a finalist's training."""
    return f"{trial.lower()}-seed-{seed}"


def outcome(spec: TuneSpec, rows: Sequence[Row], results: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """A row for each finalist, the best first. ``results``: figures of the trainings by name; those that failed lack.

    ``figures`` are means over the seeds, ``spread`` their standard deviations (none with one seed), ``seeds`` the
    figures of each. The best has the highest mean of the first accuracy that is an objective; of those that lie within
    the `noise` below it, the cheapest.
    """
    accuracy = next(name for name in spec.objectives if is_accuracy(name))
    cost = next((name for name in spec.objectives if name in COSTS), "gflops")
    found = []
    for row in chosen(spec, rows):
        first = spec.trial(row["values"]).seed
        names = [name_of(row["trial"], first + number) for number in range(spec.finalists.seeds)]
        seeds = [dict(results[name]) for name in names if name in results]
        columns = {name: [seed[name] for seed in seeds if seed.get(name) is not None]
                   for name in dict.fromkeys(name for seed in seeds for name in seed)}
        found.append({
            "finalist": row["trial"], "values": row["values"], "names": names, "seeds": seeds,
            "figures": {name: row["figures"].get(name) for name in COSTS if name in row["figures"]}
            | {name: statistics.mean(column) for name, column in columns.items() if column},
            "spread": {name: statistics.stdev(column) for name, column in columns.items() if len(column) > 1}})
    return in_order(found, accuracy, cost)


def in_order(found: list[dict[str, Any]], accuracy: str, cost: str) -> list[dict[str, Any]]:
    """The best first; each next one is chosen in the same way among those that are left, failed ones last."""
    left, order = [row for row in found if row["figures"].get(accuracy) is not None], []
    margin = noise([row["seeds"] for row in left], accuracy)
    while left:
        best = max(row["figures"][accuracy] for row in left)
        tied = [row for row in left if row["figures"][accuracy] >= best - margin]
        order.append(min(tied, key=lambda row: (row["figures"].get(cost) or 0.0, -row["figures"][accuracy])))
        left.remove(order[-1])
    return order + [row for row in found if row not in order]


def noise(trained: Sequence[Sequence[Figures]], figure: str) -> float:
    """Standard deviation of a figure between seeds, pooled over models; 0 where there is one seed of each."""
    columns = [[seed[figure] for seed in seeds if seed.get(figure) is not None] for seeds in trained]
    freedom = sum(len(column) - 1 for column in columns if column)
    squares = sum((len(column) - 1) * statistics.variance(column) for column in columns if len(column) > 1)
    return math.sqrt(squares / freedom) if freedom else 0.0
