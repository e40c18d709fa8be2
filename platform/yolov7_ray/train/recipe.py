"""`recipe: auto`: the recipe that fits the data and the length of the training, as plain values."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from yolov7.model.describe import count_parameters
from yolov7.model.detector import build_model
from yolov7.training.recipes import FILLED, RECIPES

from .. import storage
from ..data.manifest import load_manifest
from ..errors import NotFound
from ..jobs.document import overlaid
from .spec import TrainSpec

FEW_VIEWS = 2_000_000
"""Images times epochs below which a training is too short for the paper's recipes: theirs are 35 million."""
MANY_UPDATES = 20_000
LARGE_MODEL = 10_000_000
"""Parameters above which Adam's steps are halved, as wide models take smaller ones."""
FEW_UPDATES = 300
"""Updates for which the learning rate of small is the best."""
LEAST_RATE, MOST_RATE = 0.003, 0.01


@dataclass(frozen=True)
class Choice:
    """Keys of a train job, and why."""

    values: dict[str, Any]
    reasons: tuple[str, ...]


def choose(spec: TrainSpec, num_images: int, num_parameters: int) -> Choice:
    """The recipe for so many training images and a model of so many parameters."""
    views, per_update = num_images * spec.epochs, spec.batch_size
    seen = f"{num_images} images x {spec.epochs} epochs = {views} views"
    if views >= FEW_VIEWS:
        strides = len(spec.build_architecture().strides)
        name = "p6" if strides > 3 else "tiny" if "tiny" in spec.model.architecture else "p5"
        return Choice({"recipe": name} | RECIPES[name], (f"{seen}: {name}, as in the paper",))
    small = RECIPES["small"]
    updates = -(-num_images // per_update) * spec.epochs
    rate = _learning_rate(num_parameters, updates, spec.model.weights is not None)
    start = "its weights are trained" if spec.model.weights else "from scratch"
    values = overlaid(small, {
        "recipe": "small", "nominal_batch_size": per_update,
        "optimizer": {"learning_rate": rate, "warmup_epochs": min(small["optimizer"]["warmup_epochs"], spec.epochs / 5)},
        "ema": {"decay": 0.9998 if updates >= MANY_UPDATES else small["ema"]["decay"]},
    })
    return Choice(values, (f"{seen}, an update every {per_update} images = {updates}: small",
                           f"AdamW at {rate:g} for {num_parameters / 1e6:.1f} M parameters, {start}"))


def _learning_rate(num_parameters: int, num_updates: int, is_trained: bool) -> float:
    """Peak rate of AdamW, two digits: the longer the training, the higher; half for large models, a quarter from weights.

    0.004 was best after 300 updates, 0.008 after 650 and 0.01 after 1,400, for YOLOv7-tiny at widths 0.25 to 1 alike
    (tests/bench/LOG.md).
    """
    rate = RECIPES["small"]["optimizer"]["learning_rate"] * math.sqrt(num_updates / FEW_UPDATES)
    rate = min(max(rate, LEAST_RATE), MOST_RATE) * (0.5 if num_parameters > LARGE_MODEL else 1)
    return float(f"{rate * (0.25 if is_trained else 1):.2g}")


def choice_for(spec: TrainSpec, num_images: int, num_classes: int) -> Choice:
    """The choice for a dataset of so many images, all of which are trained on, and classes."""
    with torch.device("meta"):
        model = build_model(spec.build_architecture(), num_classes)
    return choose(spec, num_images, count_parameters(model))


def filled(spec: TrainSpec, values: dict[str, Any]) -> TrainSpec:
    """The job with these values of a recipe, below those that it gives."""
    own = spec.model_dump(mode="json")
    del own["recipe"]
    return TrainSpec.model_validate(overlaid(values, own))


def with_recipe(spec: TrainSpec, run: str | None = None, log: Callable[[str], None] = lambda line: None) -> TrainSpec:
    """The job with ``recipe: auto`` replaced by a recipe's values, below those that it gives: the run's if it has some.

    ``log`` is told what is chosen and why.
    """
    if spec.recipe != "auto":
        return spec
    values = _of_run(run) if run is not None else {}
    if not values:
        manifest = load_manifest(spec.dataset)
        num_images = spec.data.num_chosen(manifest.split(spec.data.train_split).num_rows)
        choice = choice_for(spec, num_images, len(manifest.classes))
        values = choice.values
        for reason in choice.reasons:
            log(f"recipe: {reason}")
    return filled(spec, values)


def _of_run(run: str) -> dict[str, Any]:
    """What a recipe has filled when the run was started; empty if it was not."""
    try:
        earlier = storage.read_json(storage.join(run, "spec.json"))
    except NotFound:
        return {}
    return {key: earlier[key] for key in ("recipe", *FILLED) if key in earlier}
