"""Proposals as Ray Tune asks for them: no more at once than fits, and the state of a resumed search."""

import pytest
from training_jobs import train_job

from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.concurrency import trials_at_once
from yolov7_ray.tune.proposals import Proposals, ProposerSearch
from yolov7_ray.tune.search.proposals import Proposer


def spec(**changes):
    return validate({"kind": "tune", "train": train_job("data", "runs"), "budget": {"trials": 30},
                     "search": {"model.width": {"quantized": [0.25, 1.0, 0.25]},
                                "data.image_size_px": {"choice": [64, 96, 128]}}} | changes)


def searcher(slots=lambda: 1) -> ProposerSearch:
    return ProposerSearch(lambda state: Proposer(spec(), state=state), slots, 2)


def search(asked: ProposerSearch, start: int, number: int) -> list[dict]:
    """Values of so many trials, one after the other, which reach AP = width."""
    found = []
    for trial in map(str, range(start, start + number)):
        values = asked.suggest(trial)
        if values == ProposerSearch.FINISHED:
            break
        found.append(values)
        asked.on_trial_complete(trial, {"score": values["model.width"]})
    return found


def test_a_search_ends_when_every_point_was_tried():
    asked = searcher()
    assert len(search(asked, 0, 30)) == 12
    assert all(known.rungs == {2: {"ap": known.values["model.width"]}} for known in asked.proposer.trials.values())


def test_no_more_trials_run_than_fit_now():
    fit = [2]
    asked = searcher(lambda: fit[0])
    assert asked.suggest("a") and asked.suggest("b") and asked.suggest("c") is None
    fit[0] = 3
    assert asked.suggest("c") and asked.suggest("d") is None
    asked.on_trial_complete("a", None, error=True)
    assert asked.suggest("d") and asked.proposer.trials["a"].lost


def test_a_resumed_search_knows_what_was_tried_and_may_be_longer(tmp_path):
    proposals = Proposals(searcher(), 5)
    first = search(proposals.searcher, 0, 5)
    proposals._counter, proposals._total_samples = 5, 5
    assert proposals.is_finished()
    proposals.save_to_dir(str(tmp_path), "s")
    longer = Proposals(searcher(), 12)
    longer.restore_from_dir(str(tmp_path))
    assert not longer.is_finished() and longer.total_samples == 12
    rest = search(longer.searcher, 5, 20)
    assert len(rest) == 7 and all(values not in first for values in rest)


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
