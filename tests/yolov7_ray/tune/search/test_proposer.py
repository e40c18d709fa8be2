"""Proposals: nothing twice, nothing that breaks a constraint, and the same ones after a restart."""

import itertools
import json
import math
import random
import statistics

import pytest
from training_jobs import train_job

from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.search.algorithms import draw_evolved
from yolov7_ray.tune.search.history import ENOUGH, Known, told
from yolov7_ray.tune.search.proposals import FINISHED, Proposer
from yolov7_ray.tune.search.space import Space

GRID = {"model.width": {"quantized": [0.25, 1.0, 0.25]}, "data.image_size_px": {"choice": [128, 64, 96]}}
MIXED = GRID | {"optimizer.learning_rate": {"loguniform": [1e-4, 1e-1]},
                "optimizer.algorithm": {"choice": ["sgd", "adam"]}}
ALGORITHMS = ("promote", "evolve", "random", "grid")


def spec(search=GRID, **changes):
    return validate({"kind": "tune", "train": train_job("data", "runs"), "search": search} | changes)


def gflops(job) -> dict[str, float]:
    return {"gflops": job.model.width * job.data.image_size_px}


def ap(values: dict) -> float:
    """Best at a rate of 0.01, with sgd, and for the largest models."""
    return (values["model.width"] * values["data.image_size_px"] / 128
            * math.exp(-math.log10(values.get("optimizer.learning_rate", 0.01) / 0.01) ** 2)
            * (1.0 if values.get("optimizer.algorithm") != "adam" else 0.5))


def search(proposer: Proposer, names, epoch: int = 2) -> list[dict]:
    """Values of so many trials, one after the other."""
    found = []
    for trial in map(str, names):
        values = proposer.suggest(trial)
        if values == FINISHED:
            break
        found.append(values)
        proposer.observe(trial, epoch, {"ap": ap(values)})
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_point_is_proposed_once_and_then_the_search_is_over(algorithm):
    proposer = Proposer(spec(algorithm=algorithm), gflops)
    found = search(proposer, range(30))
    assert sorted((values["model.width"], values["data.image_size_px"]) for values in found) == [
        *itertools.product((0.25, 0.5, 0.75, 1.0), (64, 96, 128))]
    assert found != sorted(found, key=str), "not in the order of the grid"
    assert proposer.suggest("one more") == FINISHED and proposer.suggest("3") == found[3]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_search_proposes_what_an_undisturbed_one_does(algorithm):
    job = spec(MIXED if algorithm != "grid" else GRID, algorithm=algorithm, seed=3)
    undisturbed = search(whole := Proposer(job, gflops), range(24))
    interrupted = Proposer(job, gflops)
    begun = search(interrupted, range(5)) + [interrupted.suggest("5")]
    for start in range(6, 24):
        state = json.loads(json.dumps(interrupted.state()))
        interrupted = Proposer(job, gflops, state=state)
        interrupted.observe(str(start - 1), 2, {"ap": ap(begun[-1])})
        begun.append(interrupted.suggest(str(start)))
        if begun[-1] == FINISHED:
            break
    assert [values for values in begun if values != FINISHED] == undisturbed
    assert interrupted.state()["rejected"] == whole.state()["rejected"] == []
    assert search(Proposer(job, gflops), range(24)) == undisturbed
    if algorithm != "grid":
        assert search(Proposer(spec(MIXED, algorithm=algorithm, seed=4), gflops), range(24)) != undisturbed


def test_points_that_break_a_constraint_are_never_trained():
    proposer = Proposer(spec(constraints={"gflops": "<= 48"}), gflops)
    found = search(proposer, range(30))
    assert sorted(values["model.width"] * values["data.image_size_px"] for values in found) == [16, 24, 32, 32, 48, 48]
    assert len(proposer.rejected) == 6
    for known in proposer.rejected:
        assert known.reason == f"gflops {known.costs['gflops']:.4g} is not <= 48"
    with pytest.raises(JobError) as error:
        Proposer(spec(constraints={"gflops": "<= 1"}), gflops).suggest("a")
    assert str(error.value).startswith("constraints: all of 12 points were rejected; the last: gflops ")
    with pytest.raises(JobError, match="all of 300 points were rejected"):
        Proposer(spec(MIXED, constraints={"gflops": "<= 1"}), gflops).suggest("a")


def test_a_model_that_is_rejected_where_it_runs_is_not_compared():
    proposer = Proposer(spec(constraints={"latency_ms": "<= 5"}), gflops)
    proposer.suggest("a")
    assert proposer.reject("a", {"latency_ms": 4.0}) is None
    assert proposer.reject("a", {"latency_ms": 6.0}) == "latency_ms 6 is not <= 5"
    assert Proposer(spec(constraints={"latency_ms": "<= 5"}), state=proposer.state()).trials["a"].reason
    assert told([proposer.trials["a"]], ["ap"]).rejected == [proposer.trials["a"]]
    assert proposer.trials["a"].violations(proposer._spec.constraints) == {"latency_ms": pytest.approx(0.2)}


def test_values_that_the_train_job_refuses_together_are_left_out():
    """Only pairs are tried in advance, and it takes three to leave a worker one image of one cell."""
    job = spec({"data.image_size_px": {"choice": [64, 128]}, "batch_size": {"choice": [1, 4]},
                "data.multi_scale": {"choice": [0.0, 0.5]}},
               train=train_job("data", "runs", batch_size=4, data={"image_size_px": 128}))
    proposer = Proposer(job, lambda model: {})
    found = [proposer.suggest(str(trial)) for trial in range(8)]
    assert found[-1] == FINISHED and FINISHED not in found[:-1]
    [refused] = proposer.rejected
    assert refused.values == {"data.image_size_px": 64, "batch_size": 1, "data.multi_scale": 0.5}
    assert "leaves one image alone" in refused.reason and refused.violations({}) == {"built": 1.0}


def test_first_points_go_first_and_what_is_lost_is_not_tried_again():
    first = [{"model.width": 0.5, "data.image_size_px": 96}, {"model.width": 1.0, "data.image_size_px": 64}]
    proposer = Proposer(spec(), gflops, first=[*first, first[0]])
    assert [proposer.suggest("a"), proposer.suggest("b")] == first
    proposer.lost("a")
    rest = search(proposer, range(30))
    assert len(rest) == 10 and first[0] not in rest


def known(width: float, **rungs) -> Known:
    return Known({"model.width": width}, {"gflops": width},
                 {int(epoch[1:]): {"ap": value} for epoch, value in rungs.items()})


def test_one_fidelity_is_told_the_highest_that_enough_trials_reached():
    early = [known(0.25, e1=0.1) for _ in range(5)]
    further = [known(0.5, e1=0.2, e3=0.3) for _ in range(ENOUGH - 1)]
    lost = Known({}, lost=True, rungs={9: {"ap": 1.0}})
    broken = Known({}, reason="too large")
    found = told([*early, *further, lost, broken], ["ap", "gflops"])
    assert (found.epoch, found.compared, found.others, found.rejected) == (1, early + further, [], [broken])
    further.append(known(0.75, e1=0.2, e3=0.4, e9=0.5))
    running = known(1.0)
    found = told([*early, *further, running], ["ap", "gflops"])
    assert (found.epoch, found.compared, found.others) == (3, further, [*early, running])
    assert further[-1].objectives(["ap", "gflops"], 3) == [0.4, 0.75]
    assert told([known(0.5, e1=None)] * ENOUGH, ["ap"]).epoch is None, "no AP is known"


@pytest.mark.parametrize("algorithm", ["promote", "evolve"])
def test_the_search_gathers_where_results_are_good(algorithm):
    wide = MIXED | {"model.width": {"quantized": [0.25, 1.0, 0.05]}}
    gains = []
    for seed in range(4):
        learnt, drawn = (statistics.mean(map(ap, search(Proposer(spec(
            wide, algorithm=name, seed=seed, objectives={"ap": "max"})), range(40))[20:]))
            for name in (algorithm, "random"))
        gains.append(learnt / drawn)
    assert min(gains) > 1.3, gains


def test_children_are_near_the_best_and_within_the_ranges():
    job = spec(MIXED)
    space, rng = Space(job.search), random.Random(0)
    trials = [Known(space.draw(rng)) for _ in range(40)]
    for trial in trials:
        trial.rungs[1] = {"ap": ap(trial.values)}
    children = [draw_evolved(space, told(trials, ["ap"]), {"ap": "max"}, {}, rng) for _ in range(200)]
    assert all(space.contains(child) for child in children)
    assert statistics.mean(map(ap, children)) > 2 * statistics.mean(ap(trial.values) for trial in trials)
