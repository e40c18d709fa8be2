"""A job that can never fit is rejected at once, with the available resources."""

import pytest

from yolov7_ray.cluster import local_ray
from yolov7_ray.cluster.resources import total
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.admission import check, requested
from yolov7_ray.jobs.job_file import load_job

TUNE = "kind: tune\ntrain: {kind: train, dataset: d, resources: {workers: 2}}\nsearch: {seed: {integer: [0, 9]}}\n"
SERVE = "kind: serve\nmodels: {a: {model: a@x}, b: {model: b@x}}\nregistry: r\nreplicas: 2\n"
PIPELINE = """kind: pipeline
steps:
  serve: {kind: serve, models: {a: {model: a@x}}, registry: r, wait: false}
  train: {kind: train, dataset: d, resources: {workers: 2}}
"""


def train(**resources):
    return load_job("kind: train\ndataset: d\nbatch_size: 64\n",
                    [f"resources.{key}={value}" for key, value in resources.items()])


@pytest.mark.parametrize(("job", "amounts"), [
    (train(), {"CPU": 1, "GPU": 0}),
    (train(workers=8, gpus_per_worker=1, cpus_per_worker=6), {"CPU": 48, "GPU": 8}),
    (load_job(TUNE), {"CPU": 2, "GPU": 0}),
    (load_job(TUNE, ["max_concurrent_trials=3"]), {"CPU": 6, "GPU": 0}),
    (load_job(TUNE, ["max_concurrent_trials=30", "budget.trials=2"]), {"CPU": 4, "GPU": 0}),
    (load_job(SERVE, ["gpus_per_replica=0.5"]), {"CPU": 4, "GPU": 2}),
    (load_job("kind: ingest\ndataset: d\n"), {"CPU": 1, "GPU": 0}),
    (load_job(PIPELINE), {"CPU": 3, "GPU": 0}),
], ids=str)
def test_requested(job, amounts):
    assert requested(job) == pytest.approx(amounts)


def test_more_gpus_than_available():
    with pytest.raises(JobError) as error:
        check(train(workers=8, gpus_per_worker=1), {"CPU": 16, "GPU": 2})
    assert str(error.value) == (
        "job: asks for 8 CPU and 8 GPU (8 workers with 1 CPU and 1 GPU each), but there are 16 CPU and 2 GPU; "
        "lower resources.workers (--set resources.workers=…) or add nodes (--no-admission where an autoscaler will)")


def test_a_worker_that_fits_no_node_must_be_smaller():
    with pytest.raises(JobError, match=r"lower resources\.gpus_per_worker"):
        check(train(gpus_per_worker=1), {"CPU": 2})
    with pytest.raises(JobError, match=r"lower resources\.cpus_per_worker"):
        check(train(cpus_per_worker=4), {"CPU": 6}, [{"CPU": 3}, {"CPU": 3}])


def test_enough_together_but_not_on_any_node():
    nodes = [{"CPU": 3}, {"CPU": 3}]
    check(train(workers=2, cpus_per_worker=3), {"CPU": 6}, nodes)
    with pytest.raises(JobError, match="2 nodes cannot hold together: 3 CPU and 0 GPU; 3 CPU and 0 GPU"):
        check(train(workers=3, cpus_per_worker=2), {"CPU": 6}, nodes)


def test_an_exact_fit_is_admitted():
    check(train(workers=32, gpus_per_worker=1, cpus_per_worker=8), {"CPU": 256, "GPU": 32}, [{"CPU": 64, "GPU": 8}] * 4)
    check(train(workers=4, gpus_per_worker=0.25, cpus_per_worker=0.5), {"CPU": 2, "GPU": 1}, [{"CPU": 2, "GPU": 1}])


def test_the_drivers_of_trials_need_no_cpu():
    check(load_job(TUNE), {"CPU": 2})
    with pytest.raises(JobError, match=r"asks for 2 CPU.*lower train\.resources\.workers"):
        check(load_job(TUNE), {"CPU": 1})


def test_endpoints_of_earlier_steps_keep_their_resources():
    check(load_job(PIPELINE), {"CPU": 3})
    with pytest.raises(JobError, match="steps.train: asks for 2 CPU .* beside 1 CPU .* that earlier steps keep"):
        check(load_job(PIPELINE), {"CPU": 2})


def test_nodes_that_the_launcher_may_add_are_counted():
    config = {"max_workers": 3, "head_node_type": "head", "available_node_types": {
        "head": {"resources": {"CPU": 8}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 16, "GPU": 4}, "max_workers": 2},
        "spot": {"resources": {"CPU": 16, "GPU": 4}}}}
    nodes = local_ray._nodes_to_come(config)
    assert total(nodes) == {"CPU": 80, "GPU": 20}
