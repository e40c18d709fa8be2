"""`search: recipe`: every number of a recipe has a range, and every recipe lies within it."""

import dataclasses

import pytest
from pydantic import TypeAdapter
from training_jobs import train_job

from yolov7.criterion.config import LossConfig
from yolov7.images.config import AugmentConfig
from yolov7.training.config import OptimizerConfig
from yolov7.training.recipes import RECIPES
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.distributions import Distribution
from yolov7_ray.tune.search.recipe_ranges import NOT_SEARCHED, RANGES
from yolov7_ray.tune.search.space import Axis, Space
from yolov7_ray.tune.search.starts import starts

SECTIONS = {"optimizer": OptimizerConfig, "loss": LossConfig, "augment": AugmentConfig}


def recipe(**changes):
    return validate({"kind": "tune", "train": train_job("data", "runs", epochs=20) | changes, "search": "recipe"})


def test_every_number_has_a_range_or_a_reason_for_none():
    numbers = {f"{section}.{field.name}" for section, config in SECTIONS.items() for field in dataclasses.fields(config)
               if type(field.default) in (int, float)}
    assert numbers == {*RANGES, *NOT_SEARCHED} and not {*RANGES} & {*NOT_SEARCHED}
    assert all(len(reason) > 10 for _, reason in RANGES.values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_lies_within_the_ranges(name):
    for path, (distribution, _) in RANGES.items():
        axis = Axis.of(TypeAdapter(Distribution).validate_python(distribution))
        section, key = path.split(".")
        value = RECIPES[name].get(section, {}).get(key, getattr(SECTIONS[section](), key))
        assert axis.nearest(value) == value, path


def test_a_recipe_is_a_search_like_any_other():
    spec = recipe()
    assert list(spec.search) == [path for path in RANGES if path != "loss.auxiliary_gain"], "tiny has no auxiliary head"
    assert spec.objectives == {"ap": "max"}
    assert validate(spec.model_dump(mode="json")) == spec
    [defaults] = starts(spec, None).first
    assert Space(spec.search).contains(defaults)
    assert (defaults["loss.objectness_gain"], defaults["augment.mixup"], defaults["optimizer.momentum"]) == (
        1.0, 0.05, 0.937)


def test_ranges_fit_the_train_job():
    assert recipe(optimizer={"algorithm": "adamw"}).search["optimizer.learning_rate"].loguniform == (1e-4, 1e-2)
    assert recipe().search["optimizer.learning_rate"].loguniform == (1e-3, 1e-1)
    assert recipe().search["optimizer.warmup_epochs"].uniform == (0.0, 5.0)
    assert recipe(epochs=4).search["optimizer.warmup_epochs"].uniform == (0.0, 2.0)
    w6 = {"model": {"architecture": "yolov7-w6"}, "data": {"image_size_px": 128}}
    assert "loss.auxiliary_gain" in recipe(**w6).search
    assert "loss.auxiliary_gain" not in recipe(**w6, loss={"auxiliary": "none"}).search


def test_a_train_job_that_is_not_valid_is_the_only_error():
    with pytest.raises(JobError) as error:
        recipe(epochs=0)
    assert str(error.value).startswith("job: train.epochs: 0 does not fit") and "\n" not in str(error.value)
    with pytest.raises(JobError, match="search: 'recipes' does not fit; give a section of keys, or recipe"):
        validate({"kind": "tune", "train": train_job("data", "runs"), "search": "recipes"})
