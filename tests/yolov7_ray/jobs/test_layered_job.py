"""A job over a job file: one that is there, or one that an earlier step will write."""

import json

import pytest
from searches import tune_job
from training_jobs import train_job

from yolov7_ray.errors import JobError
from yolov7_ray.jobs import admission, dry_run, paths
from yolov7_ray.jobs.job_file import load_job, to_json, validate
from yolov7_ray.jobs.pipeline import filled


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "below.yaml"
    path.write_text(json.dumps(train_job("/data", "/runs", epochs=40, name="below",
                                         optimizer={"momentum": 0.8, "learning_rate": 0.03})))
    return str(path)


def test_the_keys_that_are_given_lie_over_those_of_the_file(file):
    job = validate({"kind": "train", "job": file, "epochs": 3, "optimizer": {"learning_rate": 0.05}})
    assert (job.dataset, job.epochs, job.optimizer.momentum, job.optimizer.learning_rate) == ("/data", 3, 0.8, 0.05)
    assert job.job is None and not job.is_open and load_job(to_json(job.model_copy(update={"name": "x"}))).epochs == 3
    short = validate(tune_job(train={"kind": "train", "job": file, "epochs": 3}))
    assert (short.train.dataset, short.train.epochs) == ("/data", 3)


def test_a_file_of_another_kind_or_none_is_refused(file, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("kind: predict\n")
    for job, message in ((str(other), "holds a job of kind 'predict'; give one of the same kind"),
                         (str(tmp_path / "no.yaml"), "no.yaml: no such job file"), (str(tmp_path), "cannot be read")):
        with pytest.raises(JobError, match=message):
            validate({"kind": "train", "job": job})
    with pytest.raises(JobError, match="job: epocs: is an unknown key; did you mean 'epochs'?"):
        validate({"kind": "train", "job": file, "epocs": 3})
    with pytest.raises(JobError, match="job: epochs: 0 does not fit"):
        validate({"kind": "train", "job": file, "epochs": 0})


# --- a file that an earlier step writes -------------------------------------------------------------


def pipeline(dataset: str = "/data", storage_uri: str = "runs", train: dict | None = None, **steps) -> dict:
    """A search, and a training of its best with more epochs."""
    return {"kind": "pipeline", "steps": {
        "tune": tune_job(dataset, storage_uri, train=train_job(dataset, "runs", epochs=2, resources={"workers": 2})),
        "train": {"kind": "train", "job": "${tune.best_job}"} | ({"epochs": 30} if train is None else train)} | steps}


def test_before_the_search_has_run_its_train_job_stands_for_the_best():
    job = validate(pipeline(train={"epochs": 30, "optimizer": {"momentum": 0.9}}))
    best = job.steps["train"]
    assert (best.epochs, best.optimizer.momentum, best.model.depth, best.dataset) == (30, 0.9, 0.5, "/data")
    assert admission.demand(best).count == 2, "workers of the search's train job"
    only = {"kind": "train", "job": "${tune.best_job}", "epochs": 30, "optimizer": {"momentum": 0.9}}
    assert best.model_dump(mode="json") == only, "what the search decides is not fixed in advance"
    assert load_job(to_json(job)).steps == job.steps
    assert paths.absolute(job).steps["train"].model_dump(mode="json") == only


def test_the_step_trains_what_the_search_has_written(tmp_path):
    best = tmp_path / "best.yaml"
    best.write_text(json.dumps(train_job("/data", "/runs", epochs=2, batch_size=4)))
    step = validate(pipeline()).steps["train"]
    job = filled(step, {"tune": {"best_job": str(best)}}, "train")
    assert (job.epochs, job.batch_size, job.storage, job.job) == (30, 4, "/runs", None)


def test_a_dry_run_tells_the_cost_of_training_the_best(shapes_dataset):
    text = dry_run.plan(validate(pipeline(shapes_dataset)))
    last = text[text.index("\ntrain (train)"):]
    assert "asks for  2 CPU and 0 GPU (2 workers)" in last and "x 30 epochs = 90" in last


@pytest.mark.parametrize(("train", "message"), [
    ({"epochs": 0}, "steps.train.epochs: 0 does not fit"),
    ({"epocs": 3}, "steps.train.epocs: is an unknown key"),
    ({"data": {"image_size_px": 100}}, "steps.train.data.image_size_px: 100 is not a multiple"),
    ({"job": "${tune.front}"}, r"steps.train.job: \${tune.front} is a front and no job; give \${tune.best_job}"),
    ({"job": "${search.best_job}"}, "names no earlier step; earlier steps are tune"),
    ({"job": "${tune.best}"}, "step 'tune' .tune. has no output 'best'"),
    ({"model": {"weights": "${tune.run}"}}, r"\${tune.run} is a search and no model; give \${tune.checkpoint} or")])
def test_a_mistake_is_found_before_the_search_runs(train, message):
    with pytest.raises(JobError, match=message):
        validate(pipeline(train=train))


@pytest.mark.parametrize(("output", "problem"), [
    ("model", None), ("checkpoint", None), ("front", None), ("run", "is a search and no model or front"),
    ("best_job", "is a job and no model or front")])
def test_what_is_published_is_a_model_or_a_front(output, problem):
    document = pipeline(publish={"kind": "publish", "model": "${tune.%s}" % output, "registry": "r", "publish_as": "x"})
    if problem is None:
        validate(document)
    else:
        with pytest.raises(JobError, match=problem):
            validate(document)


def test_an_evaluation_takes_one_model():
    with pytest.raises(JobError, match=r"steps.evaluate.model: \${tune.front} is a front and no model"):
        validate(pipeline(evaluate={"kind": "evaluate", "model": "${tune.front}", "dataset": "/data"}))


def test_alone_it_is_refused():
    job = validate({"kind": "train", "job": "${tune.best_job}"})
    assert job.is_open
    with pytest.raises(JobError, match=r"job: \${tune.best_job}: refers to a step, and this is no step of a pipeline"):
        paths.check_inputs(job)
    with pytest.raises(JobError, match="train.job: .* is known after that step alone; give the path of a file"):
        validate(tune_job(train={"kind": "train", "job": "${tune.best_job}"}))


# --- several models ---------------------------------------------------------------------------------


def test_all_published_models_are_served():
    steps = {"publish": {"kind": "publish", "model": "${tune.front}", "registry": "r", "publish_as": "x"},
             "serve": {"kind": "serve", "registry": "r", "models": "${publish.models}"}}
    serve = validate(pipeline(**steps)).steps["serve"]
    models = {"w025": {"model": "x-w025:1"}, "w050": {"model": "x-w050:3"}}
    found = filled(serve, {"publish": {"models": models}}, "serve")
    assert {name: served.model for name, served in found.models.items()} == {"w025": "x-w025:1", "w050": "x-w050:3"}
    assert admission.demand(serve).count == 1 and admission.demand(found).count == 2
    with pytest.raises(JobError, match=r"steps.serve.models: \${publish.model} is a model and no models; give \${publish.m"):
        validate(pipeline(**steps | {"serve": steps["serve"] | {"models": "${publish.model}"}}))
    for models, message in (("${publish.models}", "refers to a step, and this is no step of a pipeline"),
                            ("all", "'all' does not fit; give a section of names"), ({}, "models: {} does not fit")):
        with pytest.raises(JobError, match=message):
            paths.check_inputs(validate({"kind": "serve", "registry": "r", "models": models}))
