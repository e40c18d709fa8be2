"""`recipe: auto`: chosen by the data and the length of the training, below what the job gives, and kept by its run."""

import pytest
from training_jobs import train_job

from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.dry_run import plan
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.train.recipe import choose, with_recipe
from yolov7_ray.train.report import best_row
from yolov7_ray.train.starting_point import check_resumed, settled


def auto(dataset: str, **changes):
    """A train job that leaves its recipe open."""
    kept = {key: value for key, value in train_job(dataset, "runs").items()
            if key in ("kind", "dataset", "storage", "model", "data", "epochs", "batch_size")}
    return validate(kept | {"recipe": "auto"} | changes)


def test_few_images_get_small_and_many_the_papers(shapes_dataset):
    job = auto(shapes_dataset, epochs=100, batch_size=8)
    small = choose(job, 160, 1_000_000)
    assert small.values["recipe"] == "small" and small.values["optimizer"]["learning_rate"] == 0.01
    assert "160 images x 100 epochs = 16000 views, an update every 8 images = 2000" in small.reasons[0]
    assert choose(job, 20_000, 1_000_000).values["recipe"] == "tiny"
    for name, recipe in (("yolov7", "p5"), ("yolov7-w6", "p6")):
        job = auto(shapes_dataset, epochs=300, model={"architecture": name}, data={"image_size_px": 64})
        assert choose(job, 118_000, 1_000_000).values["recipe"] == recipe


@pytest.mark.parametrize("changes, parameters, rate", [
    ({"epochs": 25}, 400_000, 0.004), ({"epochs": 25}, 37_000_000, 0.002), ({"epochs": 2}, 400_000, 0.003),
    ({"epochs": 100}, 6_000_000, 0.008), ({"epochs": 1000}, 6_000_000, 0.01), ({"epochs": 200, "batch_size": 32}, 1, 0.0057),
    ({"epochs": 25, "model": {"architecture": "yolov7", "weights": "x"}}, 37_000_000, 0.0005),
])
def test_the_rate_follows_length_model_and_start(shapes_dataset, changes, parameters, rate):
    job = auto(shapes_dataset, **{"batch_size": 8} | changes)
    assert choose(job, 96, parameters).values["optimizer"]["learning_rate"] == rate


def test_what_the_job_gives_lies_over_the_choice_even_where_it_is_the_default(shapes_dataset):
    job = auto(shapes_dataset, augment={"mosaic": 1.0}, optimizer={"learning_rate": 0.01})
    assert job.model_dump()["augment"] == {"mosaic": 1.0} and "loss" not in job.model_dump()
    assert validate(job.model_dump(mode="json")).model_dump() == job.model_dump(), "on a cluster it is the same job"
    lines = []
    found = with_recipe(job, log=lines.append)
    assert found.recipe == "small" and found.augment.mosaic == 1 and found.augment.scale == 0.3
    assert found.optimizer.learning_rate == 0.01 and found.optimizer.algorithm == "adamw"
    assert not found.loss.scale_gains and found.nominal_batch_size == job.batch_size
    assert len(lines) == 2 and lines[0].startswith("recipe: ")


def test_a_run_keeps_its_recipe_when_it_is_resumed(shapes_dataset, tmp_path):
    run, job = str(tmp_path / "run"), auto(shapes_dataset)
    begun = settled(job, run)
    storage.write_json(storage.join(run, "spec.json"), begun.model_dump(mode="json"))
    storage.write_json(storage.join(run, "data.json"), {"dataset": shapes_dataset, "fingerprint": None})
    longer = auto(shapes_dataset, epochs=1_000_000)
    assert with_recipe(longer).recipe == "tiny"
    assert settled(longer, run).augment == begun.augment
    assert [line for line in check_resumed(longer, run) if "checkpoints" not in line] == [
        f"epochs: {job.epochs} -> 1000000"]
    with pytest.raises(JobError, match="augment.mosaic"):
        check_resumed(auto(shapes_dataset, augment={"mosaic": 0.7}), run)


def test_the_dry_run_tells_the_choice(shapes_dataset):
    assert "recipe" in plan(auto(shapes_dataset)) and "views, an update every" in plan(auto(shapes_dataset))


@pytest.mark.parametrize("recipe", [["small"], {"small": 1}, 3])
def test_another_type_of_recipe_is_an_error(shapes_dataset, recipe):
    with pytest.raises(JobError, match="recipe"):
        validate({"kind": "train", "dataset": shapes_dataset, "recipe": recipe})


def test_the_best_epoch_is_chosen_by_any_figure():
    rows = [{"epoch": 1, "ap": 0.2, "ap50": 0.5}, {"epoch": 2}, {"epoch": 3, "ap": 0.1, "ap50": 0.6},
            {"epoch": 4, "ap": 0.2, "ap50": None}]
    assert best_row(rows, "ap")["epoch"] == 1 and best_row(rows, "ap", latest=True)["epoch"] == 4
    assert best_row(rows, "ap50")["epoch"] == 3 and best_row(rows, "ap_small") is None
