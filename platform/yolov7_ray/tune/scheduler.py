"""Search algorithm and early stopping: Optuna over one or two objectives, ASHA on AP alone."""

from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from .spec import TuneSpec


def searcher(spec: TuneSpec) -> OptunaSearch:
    """Optuna's TPE; weighs AP against FLOPs if the search changes the cost of the model."""
    if spec.searches_architecture:
        return OptunaSearch(metric=["score", "gflops"], mode=["max", "min"], seed=spec.seed)
    return OptunaSearch(metric="score", mode="max", seed=spec.seed)


def scheduler(spec: TuneSpec) -> ASHAScheduler:
    """Asynchronous successive halving over epochs; a trial not stopped early ends by itself, results written."""
    return ASHAScheduler(
        time_attr="epoch", metric="score", mode="max", max_t=spec.train.epochs + 1,
        grace_period=min(spec.grace_epochs, spec.train.epochs), reduction_factor=spec.reduction_factor,
    )


def pareto_front(points: list[tuple[float, float]]) -> list[int]:
    """Indices of the (AP, FLOPs) points that no other dominates: AP higher, FLOPs lower."""
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    front, best = [], float("-inf")
    for index in order:
        if points[index][0] > best:
            front.append(index)
            best = points[index][0]
    return front
