"""Proposals: nothing twice, no more at once than fits, and the state of a resumed search."""

import pytest
from training_jobs import train_job

from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.concurrency import trials_at_once
from yolov7_ray.tune.proposals import Proposals, Proposer
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
        proposer.on_trial_complete(trial, {"score": values["model.width"], "gflops": 10.0})
    return found


def test_every_point_is_proposed_once_and_then_the_search_is_over():
    proposer = Proposer(spec(), lambda: 1)
    found = search(proposer, 0, 30)
    assert sorted((values["model.width"], values["data.image_size_px"]) for values in found) == [
        (width, size) for width in (0.25, 0.5, 0.75, 1.0) for size in (64, 96, 128)]
    told = [trial for trial in proposer._ot_study.trials if trial.state.name == "COMPLETE"]
    assert len(told) > 12 and all(trial.values == [trial.params["model.width"], 10.0] for trial in told)


def test_no_more_trials_run_than_fit_now():
    fit = [2]
    proposer = Proposer(spec(), lambda: fit[0])
    assert proposer.suggest("a") and proposer.suggest("b") and proposer.suggest("c") is None
    fit[0] = 3
    assert proposer.suggest("c") and proposer.suggest("d") is None
    proposer.on_trial_complete("a", None, error=True)
    assert proposer.suggest("d")


def test_a_resumed_search_knows_what_was_tried_and_may_be_longer(tmp_path):
    proposals = Proposals(Proposer(spec(), lambda: 1), 5)
    first = search(proposals.searcher, 0, 5)
    proposals._counter, proposals._total_samples = 5, 5
    assert proposals.is_finished()
    proposals.save_to_dir(str(tmp_path), "s")
    longer = Proposals(Proposer(spec(), lambda: 1), 12)
    longer.restore_from_dir(str(tmp_path))
    assert not longer.is_finished() and longer.total_samples == 12
    rest = search(longer.searcher, 5, 20)
    assert len(rest) == 7 and all(values not in first for values in rest)


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


@pytest.mark.parametrize(("nodes", "resources", "changes", "count"), [
    ([{"CPU": 8, "GPU": 8}], {"gpus_per_worker": 1}, {}, 8),  # the driver of a trial costs no CPU of a worker
    ([{"CPU": 2}] + [{"CPU": 8, "GPU": 4}] * 3, {"gpus_per_worker": 1}, {}, 12),
    ([{"CPU": 2}] + [{"CPU": 8, "GPU": 4}] * 3, {"gpus_per_worker": 1, "workers": 5}, {}, 2),
    ([{"CPU": 3}, {"CPU": 3}], {"cpus_per_worker": 2}, {}, 2),  # 6 CPU, of which each node has one left
    ([{"CPU": 8}], {}, {"max_concurrent_trials": 3}, 3),
    ([{"CPU": 100}], {}, {}, 30),
    ([{"CPU": 2}], {"gpus_per_worker": 1}, {}, 1),  # nodes that an autoscaler adds for the first trial
])
def test_trials_at_once_counts_every_node(nodes, resources, changes, count):
    job = train_job("data", "runs", resources={"workers": 1} | resources)
    assert trials_at_once(spec(train=job, **changes), nodes) == count
