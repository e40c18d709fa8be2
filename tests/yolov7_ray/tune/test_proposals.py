"""Proposals: nothing twice, and the state of a resumed search."""

from training_jobs import train_job

from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.proposals import Proposer, proposer
from yolov7_ray.tune.search_space import search_space


def spec(**changes):
    return validate({"kind": "tune", "train": train_job("data", "runs"), "budget": {"trials": 30},
                     "search": {"model.width": {"quantized": [0.25, 1.0, 0.25]},
                                "data.image_size_px": {"choice": [64, 96, 128]}}} | changes)


def search(proposer: Proposer, start: int, number: int) -> list[dict]:
    """Values of so many trials, one after the other, which reach AP = width and 10 GFLOPs."""
    found = []
    for trial in map(str, range(start, start + number)):
        values = proposer.suggest(trial)
        if values == Proposer.FINISHED:
            break
        found.append(values)
        proposer.observe(trial, 1, {"ap": values["model.width"], "gflops": 10.0})
    return found


def test_every_point_is_proposed_once_and_then_the_search_is_over():
    proposer = Proposer(spec())
    found = search(proposer, 0, 30)
    assert sorted((values["model.width"], values["data.image_size_px"]) for values in found) == [
        (width, size) for width in (0.25, 0.5, 0.75, 1.0) for size in (64, 96, 128)]
    told = [trial for trial in proposer._ot_study.trials if trial.state.name == "COMPLETE"]
    assert len(told) > 12 and all(trial.values == [trial.params["model.width"], 10.0] for trial in told)


def test_a_resumed_search_proposes_what_the_undisturbed_one_does():
    undisturbed = search(Proposer(spec()), 0, 12)
    begun = Proposer(spec())
    first = search(begun, 0, 5)
    assert first + search(proposer(spec(), None, begun.state()), 5, 7) == undisturbed


def test_the_space_is_optunas_with_both_ends():
    space = search_space(spec(search={
        "optimizer.learning_rate": {"loguniform": [0.001, 0.1]}, "augment.scale": {"uniform": [0.2, 0.9]},
        "batch_size": {"integer": [8, 10]}, "model.width": {"quantized": [0.3, 1.0, 0.35]},
        "augment.mosaic": {"choice": [0.0, 1.0]}}).search)
    assert [str(distribution) for distribution in space.values()] == [
        "FloatDistribution(high=0.1, log=True, low=0.001, step=None)",
        "FloatDistribution(high=0.9, log=False, low=0.2, step=None)",
        "IntDistribution(high=10, log=False, low=8, step=1)",
        "FloatDistribution(high=1.0, log=False, low=0.3, step=0.35)",
        "CategoricalDistribution(choices=(0.0, 1.0))"]
