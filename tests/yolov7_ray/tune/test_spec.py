"""The language of a tune job: what each key takes, and what is answered where it does not."""

import json

import pytest
from training_jobs import train_job

from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import load_job, to_json, validate
from yolov7_ray.jobs.paths import absolute
from yolov7_ray.tune.objectives import Constraint

RATE = {"optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]}}


def tune_job(**changes) -> dict:
    return {"kind": "tune", "train": train_job("data", "runs", epochs=9), "search": RATE} | changes


def test_all_keys_have_defaults_and_survive_json():
    spec = validate(tune_job())
    assert (spec.budget.trials, spec.budget.share, spec.budget.hours) == (20, 0.25, None)
    assert (spec.algorithm, spec.start_with, spec.finalists, spec.retries) == ("promote", ["defaults"], None, 2)
    assert (spec.keep_checkpoints, spec.constraints) == ("front", {})
    full = validate(tune_job(objectives={"ap_small": "max", "ap/red cell": "max", "latency_ms": "min"},
                             constraints={"parameters": "<= 3e6", "gflops": ">=0.5"}, finalists={"seeds": 2},
                             budget={"trials": 64, "share": None, "hours": 0.5}))
    assert full.constraints == {"parameters": Constraint("<=", 3e6), "gflops": Constraint(">=", 0.5)}
    assert (full.finalists.count, full.finalists.epochs, full.finalists.seeds) == (3, None, 2)
    assert load_job(to_json(full) + "\n") == full.model_copy(update={"name": "job"})
    assert json.loads(to_json(full))["constraints"] == {"parameters": "<= 3000000", "gflops": ">= 0.5"}


@pytest.mark.parametrize(("search", "objectives"), [
    (RATE, {"ap": "max"}),
    ({"model.width": {"choice": [0.5, 1.0]}}, {"ap": "max", "gflops": "min"}),
    ({"data.image_size_px": {"choice": [64, 96]}}, {"ap": "max", "gflops": "min"}),
    ({"model.sync_batchnorm": {"choice": [False]}}, {"ap": "max"}),
])
def test_cost_is_weighed_if_the_search_changes_it(search, objectives):
    assert validate(tune_job(search=search)).objectives == objectives
    assert validate(tune_job(search=search, objectives={"ap50": "max"})).objectives == {"ap50": "max"}


def test_a_bound_includes_itself():
    most, least = Constraint("<=", 3.0), Constraint(">=", 3.0)
    assert [most.holds(value) for value in (2.9, 3.0, 3.1)] == [True, True, False]
    assert [least.holds(value) for value in (2.9, 3.0, 3.1)] == [False, True, True]
    assert most.violation(5.0) == 2.0 and least.violation(5.0) == -2.0


@pytest.mark.parametrize(("changes", "message"), [
    ({"trials": 8}, "job: trials: has moved into the budget; give budget: {trials: 8}, or --set budget.trials=8"),
    ({"objectives": {"map": "max"}}, "objectives.map: is no figure of a trial; choose ap, ap50"),
    ({"objectives": {"ap": "min"}}, "objectives.ap: min looks for the worst; give max"),
    ({"objectives": {"ap": "max", "gflops": "max"}}, "objectives.gflops: max looks for the worst; give min"),
    ({"objectives": {"gflops": "min"}}, "objectives: gflops is known without training; give one of ap"),
    ({"objectives": {}}, "objectives: nothing is known without training"),
    ({"objectives": {"ap/": "max"}}, "objectives: ap/: is no figure of a trial"),
    ({"constraints": {"parameters": 3e6}}, "constraints.parameters: 3000000.0 is no bound; give one in quotes"),
    ({"constraints": {"parameters": "< 3e6"}}, "constraints.parameters: '< 3e6' is no bound"),
    ({"constraints": {"ap": ">= 0.3"}}, "constraints.ap: is known only after training; choose latency_ms"),
    ({"constraints": {"size": "<= 1"}}, "constraints.size: is no figure of a trial; choose latency_ms"),
    ({"budget": {"share": 0}}, "budget.share: 0 does not fit"),
    ({"budget": {"hours": 0}}, "budget.hours: 0 does not fit"),
    ({"budget": {"trial": 3}}, "budget.trial: is an unknown key; did you mean 'trials'?"),
    ({"algorithm": "pbt"}, "algorithm: 'pbt' does not fit; it must be 'promote', 'evolve', 'population', 'random' or"),
    ({"perturb_every_epochs": 3}, "perturb_every_epochs: belongs to algorithm population, this one is promote; remove"),
    ({"algorithm": "population", "perturb_every_epochs": 9}, "perturb_every_epochs: after 9 epochs nothing is left of "
                                                             "the 9 of a trial; give less, or more train.epochs"),
    ({"algorithm": "population", "budget": {"trials": 1}}, "budget.trials: 1 has no other to learn from; give 2 or"),
    ({"algorithm": "population", "finalists": {}}, "finalists: are trained with values that do not change"),
    ({"algorithm": "population", "search": RATE | {
        "model.width": {"choice": [0.5, 1.0]}, "batch_size": {"choice": [4, 8]},
        "optimizer.algorithm": {"choice": ["sgd", "adam"]}}},
     "search: model.width, batch_size, optimizer.algorithm cannot change while a model trains; algorithm population "
     "searches optimizer, loss, augment without optimizer.algorithm; remove the others or give another algorithm"),
    ({"finalists": 3}, "finalists: 3 does not fit; give a section of keys: count, epochs, seeds"),
    ({"retries": -1}, "retries: -1 does not fit"),
    ({"search": {"recipe": {"choice": ["tiny", "p5"]}}}, "search.recipe: has filled optimizer"),
    ({"search": {"epochs": {"integer": [2, 9]}}}, "search.epochs: are decided for each trial by its results"),
    ({"search": {"evaluation.every_epochs": {"integer": [1, 2]}}}, "search.evaluation.every_epochs: decides at which"),
    ({"search": {"resources.workers": {"integer": [1, 2]}}}, "search.resources.workers: are the same for all trials"),
    ({"search": {"batch_size": {"choice": [8, 16, 8.0]}}}, "search.batch_size.choice: 8.0 is given twice"),
])
def test_what_does_not_work_is_answered_with_what_does(changes, message):
    with pytest.raises(JobError) as error:
        validate(tune_job(**changes))
    assert message in str(error.value)


def population(every: int = 1, epochs: int = 9, **changes):
    train = train_job("data", "runs", epochs=epochs, evaluation={"every_epochs": every})
    return validate(tune_job(algorithm="population", train=train, **changes))


def test_generations_of_a_population_end_with_an_evaluation():
    assert [population(epochs=epochs).generation_epochs for epochs in (2, 9, 19, 20, 300)] == [1, 1, 1, 2, 30]
    assert population(4, 100).generation_epochs == 8 and population(4, 9).generation_epochs == 4
    assert population(2, perturb_every_epochs=4).generation_epochs == 4
    with pytest.raises(JobError, match="perturb_every_epochs: 3 meet no evaluation, of which there is one every 2 "
                                       "epochs; give a multiple of that, e.g. 4"):
        population(2, perturb_every_epochs=3)
    with pytest.raises(JobError, match="after 1 epochs nothing is left of the 1 of a trial"):
        population(epochs=1)
    assert population().share == 1 and population().trains_in_full, "every trial is trained in full"
    recipe = population(search="recipe")
    assert len(recipe.search) > 20 and {path.partition(".")[0] for path in recipe.search} == {
        "optimizer", "loss", "augment"}


def test_the_train_job_may_lie_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(json.dumps(train_job("data", "runs", epochs=9)))
    assert validate(tune_job(train="small.yaml")) == validate(tune_job())
    (tmp_path / "other.yaml").write_text("kind: ingest\ndataset: d\n")
    for train, message in (("other.yaml", "train: in other.yaml: kind: 'ingest' does not fit; it must be 'train'"),
                           ("none.yaml", "train: 'none.yaml' is not read: no such job file; . holds other.yaml, small.yaml")):
        with pytest.raises(JobError) as error:
            validate(tune_job(train=train))
        assert message in str(error.value)
    (tmp_path / "small.yaml").write_text(json.dumps(train_job("data", "runs", epochs=0)))
    with pytest.raises(JobError, match="job: train: in small.yaml: epochs: 0 does not fit"):
        validate(tune_job(train="small.yaml"))


def test_earlier_searches_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = validate(tune_job(start_with=["defaults", "runs/old", "s3://bucket/older"]))
    assert absolute(spec).start_with == ["defaults", str(tmp_path / "runs/old"), "s3://bucket/older"]


@pytest.mark.parametrize(("search", "trials", "message"), [
    (RATE, 99, "search.optimizer.learning_rate: takes any number, and algorithm grid needs values; give it as choice"),
    ({"batch_size": {"integer": [1, 4]}, "augment.scale": {"quantized": [0.1, 0.5, 0.1]}}, 19,
     "budget.trials: 19 are fewer than the 20 points of the grid; give 20"),
])
def test_a_grid_is_tried_as_a_whole(search, trials, message):
    with pytest.raises(JobError) as error:
        validate(tune_job(search=search, algorithm="grid", budget={"trials": trials}))
    assert message in str(error.value)
    validate(tune_job(search=search, budget={"trials": trials}))
    if search is not RATE:
        validate(tune_job(search=search, algorithm="grid", budget={"trials": trials + 1}))
