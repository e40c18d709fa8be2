"""How many trials a cluster holds."""

import pytest
from training_jobs import train_job

from yolov7_ray.jobs.job_file import validate
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
