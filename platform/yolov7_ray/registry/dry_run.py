"""The dry run of a publish job, and the line about a model."""

import torch

from yolov7.architectures.language import Architecture
from yolov7.model.describe import count_flops, count_parameters
from yolov7.model.detector import build_model

from ..data.dry_run import dataset_lines
from ..errors import JobError
from ..jobs.kind import Line, Upcoming
from .front import front_of
from .model_source import LoadedModel, load_model
from .spec import PublishSpec


def publish_lines(spec: PublishSpec, upcoming: Upcoming) -> list[Line]:
    """The model, the dataset that it is measured on, and the version."""
    _, classes, lines = dataset_lines(spec.dataset, (spec.split,), upcoming) if spec.dataset else ({}, None, [])
    alias = f", alias {spec.alias}" if spec.alias else ""
    front = None if upcoming.makes(spec.model) else front_of(spec)
    named = {spec.publish_as: spec.model} if front is None else {
        f"{spec.publish_as}-{member.name}": member.model for member in front}
    engines = ", ".join(f"{each.engine} {each.precision}" for each in spec.engines)
    return [*(line for model in named.values()
              for line in model_lines(model, spec.registry, upcoming, classes, spec.dataset or "")), *lines,
            *([("engines", f"{engines}; measured on {spec.split}")] if engines else []),
            *(("version", f"the next of {name} in {spec.registry}{alias}") for name in named)]


def model_lines(ref: str, registry: str | None, upcoming: Upcoming, classes: tuple[str, ...] | None = None,
                dataset: str = "") -> list[Line]:
    """The line about a trained model; JobError if ``classes`` are given and differ from the model's."""
    if upcoming.makes(ref):
        return [("model", f"{ref}, made by an earlier step")]
    loaded: LoadedModel = load_model(ref, registry)
    if classes is not None and tuple(loaded.classes) != tuple(classes):
        raise JobError(f"model {ref}", f"knows the classes {', '.join(loaded.classes[:10])}, while {dataset} has "
                                       f"{', '.join(classes[:10])}", "use a dataset with the model's classes")
    cost = cost_in_words(loaded.model.architecture, len(loaded.classes), loaded.image_size_px)
    return [("model", f"{loaded.source}: {loaded.model.architecture.name} at {loaded.image_size_px} px: {cost}")]


def cost_in_words(architecture: Architecture, num_classes: int, size_px: int) -> str:
    """Classes, parameters and FLOPs of the training form."""
    with torch.device("meta"):
        model = build_model(architecture, num_classes)
    parameters, flops = count_parameters(model), count_flops(model, size_px)
    return f"{num_classes} classes, {parameters / 1e6:.2f} M parameters, {flops / 1e9:.2f} GFLOPs per image"
