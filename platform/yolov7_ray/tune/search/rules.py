"""Which rule decides in a search, and at which epochs."""

from ..spec import TuneSpec
from .population import Population, generations
from .promotion import Promotion, rungs
from .records import Records


def rungs_of(spec: TuneSpec) -> list[int]:
    """Epochs at which trials pause, and the last of all."""
    train = spec.train
    if spec.algorithm == "population":
        return generations(spec.generation_epochs, train.epochs)
    if spec.trains_in_full:
        return [train.epochs]
    return rungs(spec.grace_epochs, spec.reduction_factor, train.epochs, train.evaluation.every_epochs)


def rule_of(spec: TuneSpec, state: dict | None) -> Records:
    """The rule of the job's algorithm; ``state``: what it kept."""
    settings = {"trials": spec.budget.trials, "state": state}
    if spec.algorithm == "population":
        return Population(rungs_of(spec), spec.objectives, seed=spec.seed, **settings)
    if spec.trains_in_full:
        return Records(rungs_of(spec), spec.objectives, **settings)
    settings |= {"reduction": spec.reduction_factor, "share": spec.budget.share}
    return Promotion(rungs_of(spec), spec.objectives, **settings)
