"""How many trials a cluster holds."""

import pytest
from training_jobs import train_job

from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune import concurrency
from yolov7_ray.tune.concurrency import trials_at_once


def spec(**changes):
    return validate({"kind": "tune", "train": train_job("data", "runs"), "budget": {"trials": 30},
                     "search": {"model.width": {"quantized": [0.25, 1.0, 0.25]}}} | changes)


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


class Full:
    """A search that runs one trial and could start another."""

    num_started, could_start = 1, True

    def __init__(self, spec) -> None:
        self.spec = spec


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_that_can_grow_is_asked_for_as_many_trials_as_run_and_could_start(ray_session, monkeypatch):
    from ray.util.placement_group import placement_group_table

    job = train_job("data", "runs", resources={"workers": 2, "cpus_per_worker": 1, "gpus_per_worker": 0.5})
    before = set(placement_group_table())

    def waiting() -> list[dict]:
        groups = [group for number, group in placement_group_table().items() if number not in before]
        return [group["bundles"] for group in groups if group["state"] == "PENDING"]

    monkeypatch.setattr(concurrency, "LOOK_EVERY_S", 0)
    for grows in (False, True):
        monkeypatch.setattr(concurrency, "may_grow", lambda: grows)
        search = Full(spec(train=job, max_concurrent_trials=4))
        with concurrency.TrialSlots(search) as slots:
            assert not slots.has_room()
            worker = {"CPU": 1.0, "GPU": 0.5}
            assert waiting() == ([{0: worker, 1: worker}] if grows else []), "it doubles"
            search.could_start = False
            assert not slots.has_room() and waiting() == []
            search.num_started = 0
            search.could_start = True
            assert slots.has_room() and waiting() == []
            search.num_started = 1
            slots.has_room()
        assert waiting() == []


@pytest.mark.ray
@pytest.mark.slow
def test_room_that_was_asked_for_goes_to_the_trials(ray_session, monkeypatch):
    from ray.util.placement_group import placement_group_table

    monkeypatch.setattr(concurrency, "LOOK_EVERY_S", 0)
    monkeypatch.setattr(concurrency, "may_grow", lambda: True)
    nodes = [{"Alive": True, "Resources": {"CPU": 1}}]
    monkeypatch.setattr(concurrency.ray, "nodes", lambda: nodes)
    before = set(placement_group_table())
    with concurrency.TrialSlots(Full(spec(max_concurrent_trials=4))) as slots:
        slots.has_room()
        [ask] = slots._asks
        assert ask.wait(60), "this Ray has room: as if a node had joined"
        nodes.append(nodes[0])
        assert slots.has_room() and slots._asks == []
    assert all(group["state"] == "REMOVED" for number, group in placement_group_table().items() if number not in before)


def test_what_a_leg_ended_with_is_kept_in_memory_alone(monkeypatch):
    from yolov7_ray.tune.follower import LegTrial

    monkeypatch.setattr(LegTrial, "local_path", None)  # no directory for Tune's own record
    trial = LegTrial("none", stub=True, trial_id="a")
    assert str(trial.error) == "unknown"
    for error in (ValueError("first"), ValueError("second")):
        trial.handle_error(error)
        assert trial.error is error
    trial.handle_error()
    assert str(trial.error) == "second" and "error" not in trial.__getstate__()
