"""What a job would do, said without starting anything: the text of --dry-run."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import yaml

from yolov7.architecture import Architecture
from yolov7.architectures import architecture
from yolov7.describe import count_flops, count_parameters
from yolov7.freeze import freeze
from yolov7.model import build_model

from . import admission, places, prepare, storage
from .data.blocks import check_room
from .data.doctor.examination import glance
from .data.doctor.report import plan_lines
from .data.schema import MANIFEST, Manifest, load_manifest
from .data.shapes import SHAPE_CLASSES
from .errors import JobError
from .registry.model_source import LoadedModel, load_model
from .spec import (
    REFERENCE, DoctorSpec, EvaluateSpec, IngestSpec, Job, JobSpec, PipelineSpec, PredictSpec, PublishSpec, ServeSpec,
    TrainSpec, TuneSpec,
)

UNKNOWN_CLASSES = 80
"""Class count that costs are given for while a dataset's own is not known."""

Line = tuple[str, str]


@dataclass
class Upcoming:
    """What the earlier steps of a pipeline will have made."""

    datasets: dict[str, IngestSpec] = field(default_factory=dict)
    steps: set[str] = field(default_factory=set)

    def makes(self, text: str) -> bool:
        """Whether ``text`` is, or refers to, something that an earlier step makes."""
        return text in self.datasets or any(step in self.steps for step, _ in REFERENCE.findall(text))


def plan(job: JobSpec) -> str:
    """The resolved job, what it asks for and costs, and what was found wrong with its inputs.

    Raises JobError where the job could not run: no such dataset, split, source or model, classes that differ.
    """
    places.check_access(job)
    resolved = yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True, default_flow_style=None,
                              width=110)
    steps = job.steps if isinstance(job, PipelineSpec) else {"": job}
    upcoming, blocks = Upcoming(), []
    for name, step in steps.items():
        step = _with_datasets(step, upcoming)
        lines = [("asks for", _asks(step)), *_LINES[step.kind](step, upcoming)]
        heading = f"{name} ({step.kind})" if name else f"{job.name or job.kind} ({step.kind})"
        blocks.append("\n".join([heading, *(f"  {key:<10}{text}" for key, text in lines)]))
        upcoming.steps.add(name)
        if isinstance(step, IngestSpec):
            upcoming.datasets[step.dataset] = upcoming.datasets[f"${{{name}.dataset}}"] = step
    return "\n".join([resolved, *blocks, "Nothing was started: this is a dry run."])


def _asks(job: Job) -> str:
    amounts = admission.requested(job)
    return f"{amounts['CPU']:g} CPU and {amounts['GPU']:g} GPU ({admission.demand(job).what})"


def _with_datasets(job: Job, upcoming: Upcoming) -> Job:
    """The step with ``${step.dataset}`` replaced by the URI that is known beforehand."""
    dataset = getattr(job, "dataset", None)
    if dataset in upcoming.datasets:
        return job.model_copy(update={"dataset": upcoming.datasets[dataset].dataset})
    return job


# --- one block of lines for each kind of job ----------------------------------------------------------


def _ingest(job: IngestSpec, upcoming: Upcoming) -> list[Line]:
    source = job.source
    if source.format == "shapes":
        lines = [("source", f"{_counts(source.splits)} generated, {source.image_size_px} px")]
    else:
        for split, where in source.splits.items():
            path = storage.join(source.uri, getattr(where, "annotations", where))
            if not storage.exists(path):
                raise JobError(f"source.splits.{split}", f"{path} does not exist",
                               "set source.uri to the root of the data, and source.splits to what lies below it")
        lines = [("source", f"{source.format} at {source.uri}: {', '.join(source.splits)}")]
    there = storage.exists(storage.join(job.dataset, MANIFEST))
    state = "will be written"
    if there:
        state = "exists; it will be replaced" if job.overwrite else "exists already"
    return [*lines, ("dataset", f"{job.dataset} {state}")]


def _doctor(job: DoctorSpec, upcoming: Upcoming) -> list[Line]:
    detector = ("detector", f"{job.architecture} at {job.size_px} px")
    if upcoming.makes(job.dataset):
        return [detector, *_dataset(job.dataset, (), upcoming)[2]]
    splits = load_manifest(job.dataset).splits
    filled = tuple(name for name, split in splits.items() if split.num_rows)  # the doctor tells of the others
    seen = glance(job.dataset, splits, architecture(job.architecture), job.size_px)
    return [detector, *_dataset(job.dataset, filled, upcoming)[2], *plan_lines(seen)]


def _train(job: TrainSpec, upcoming: Upcoming) -> list[Line]:
    size_px = job.data.image_size_px
    images, classes, lines = _dataset(job.dataset, (job.data.train_split, job.data.val_split), upcoming)
    loaded = prepare.starting_model(job) if job.model.weights and not upcoming.makes(job.model.weights) else None
    architecture, num_classes = prepare.starting_architecture(job, loaded), len(classes or ()) or UNKNOWN_CLASSES
    cost = _cost(architecture, num_classes, size_px)
    note = "" if classes else f" (with {UNKNOWN_CLASSES} classes; its own are known after ingest)"
    lines = [("model", f"{_scaled(job)} at {size_px} px: {cost}{note}"), *lines]
    if loaded is not None:
        taken, tensors = prepare.tensors_taken(job, loaded, num_classes)
        lines.append(("weights", f"{loaded.source}, trained on {len(loaded.classes)} classes: "
                                 f"{taken} of {tensors} tensors are taken over"))
    lines += _frozen(job, architecture, num_classes)
    if job.resources.gpus_per_worker and not job.data.processes(job.resources.cpus_per_worker):
        lines.append(("warning", "no process of its own reads and augments images, so the GPU waits for them: set "
                                 "resources.cpus_per_worker to 8 or more"))
    if not upcoming.makes(job.dataset):
        shards = load_manifest(job.dataset).split(job.data.train_split).shards
        check_room(job.dataset, shards, job.data.shuffle_shards, job.data.cache_gb)
        seen = glance(job.dataset, (job.data.train_split, job.data.val_split), architecture, size_px)
        lines += plan_lines(seen)
        if not seen.findings.num_kinds("error"):
            lines += _anchors(job, architecture)
    num_images = images.get(job.data.train_split)
    if num_images:
        steps = -(-num_images // job.batch_size)
        per_update = max(1, round(job.nominal_batch_size / job.batch_size))
        lines.append(("steps", f"{steps} per epoch of {num_images} images in batches of {job.batch_size}, "
                               f"x {job.epochs} epochs = {steps * job.epochs}; an update every {per_update}"))
    return lines


def _frozen(job: TrainSpec, architecture: Architecture, num_classes: int) -> list[Line]:
    """What is not trained."""
    if not job.model.freeze:
        return []
    with torch.device("meta"):
        model = build_model(architecture, num_classes)
    frozen = freeze(model, job.model.freeze)
    lines = [("frozen", f"{', '.join(job.model.freeze)}: {frozen / 1e6:.2f} of {count_parameters(model) / 1e6:.2f} M "
                        "parameters stay as they are")]
    if job.model.weights is None:
        lines.append(("warning", "what is frozen stays random: set model.weights to start from a trained model"))
    return lines


def _anchors(job: TrainSpec, architecture: Architecture) -> list[Line]:
    """How well the anchors fit the boxes that are trained on."""
    sizes_px = prepare.box_sizes_px(job, load_manifest(job.dataset))
    if not len(sizes_px):
        return []
    fit = prepare.measured(architecture.anchors_px, sizes_px, job)
    if job.model.anchors == "auto":
        best = prepare.fitted_anchors(job, sizes_px)
        return [("anchors", f"auto: {best} on {best.num_boxes} boxes (the default ones: {fit})")]
    kind = job.model.anchors if isinstance(job.model.anchors, str) else "given"
    lines = [("anchors", f"{kind}: {fit} on {fit.num_boxes} boxes")]
    if fit.recall < prepare.LOW_RECALL:
        lines.append(("warning", f"no anchor fits {1 - fit.recall:.1%} of the boxes, which are never learnt: "
                                 "set model.anchors to auto"))
    return lines


def _tune(job: TuneSpec, upcoming: Upcoming) -> list[Line]:
    searched = []
    for path, distribution in job.search.items():
        [(name, values)] = distribution.model_dump().items()
        searched.append(("search", f"{path}: {name} {', '.join(map(str, values))}"))
    return [("trials", f"{job.trials}, of at most {job.train.epochs} epochs"), *searched, *_train(job.train, upcoming)]


def _evaluate(job: EvaluateSpec, upcoming: Upcoming) -> list[Line]:
    _, classes, lines = _dataset(job.dataset, (job.split,), upcoming)
    return _used_model(job.model, job.registry, upcoming, classes, job.dataset) + lines


def _publish(job: PublishSpec, upcoming: Upcoming) -> list[Line]:
    _, classes, lines = _dataset(job.dataset, (job.split,), upcoming) if job.dataset else ({}, None, [])
    alias = f", alias {job.alias}" if job.alias else ""
    return [*_used_model(job.model, job.registry, upcoming, classes, job.dataset or ""), *lines,
            ("version", f"the next of {job.publish_as} in {job.registry}{alias}")]


def _predict(job: PredictSpec, upcoming: Upcoming) -> list[Line]:
    if not upcoming.makes(job.images) and not storage.exists(job.images):
        raise JobError("images", f"{job.images} does not exist or is empty",
                       "give a directory of images or an Arrow dataset")
    return [*_used_model(job.model, job.registry, upcoming), ("images", job.images), ("output", job.output)]


def _serve(job: ServeSpec, upcoming: Upcoming) -> list[Line]:
    lines = [line for served in job.models.values() for line in _used_model(served.model, job.registry, upcoming)]
    if job.probe:
        lines += _dataset(job.probe.dataset, (job.probe.split,), upcoming)[2]
    authentication = "bearer token" if job.token_env else "no"
    return [*lines, ("endpoint", f"http://{job.host}:{job.port}, {authentication} authentication")]


_LINES: dict[str, Callable[[Job, Upcoming], list[Line]]] = {
    "ingest": _ingest, "doctor": _doctor, "train": _train, "tune": _tune, "evaluate": _evaluate,
    "publish": _publish, "predict": _predict, "serve": _serve,
}


# --- what they are made of ----------------------------------------------------------------------------


def _dataset(uri: str, splits: tuple[str, ...], upcoming: Upcoming) -> tuple[dict[str, int], tuple | None, list[Line]]:
    """Images per split, classes (None: not known yet) and the lines about a dataset, which is checked."""
    if uri in upcoming.datasets:
        source = upcoming.datasets[uri].source
        generated = source.format == "shapes"
        missing = [split for split in splits if split not in source.splits]
        if missing:
            raise JobError("dataset", f"step that ingests {uri} makes no split '{missing[0]}'",
                           f"it makes {', '.join(source.splits)}")
        classes = upcoming.datasets[uri].classes or getattr(source, "classes", None) or \
            (SHAPE_CLASSES if generated else None)
        images = dict(source.splits) if generated else {}
        where = upcoming.datasets[uri].dataset
        return images, classes and tuple(classes), [("dataset", f"{where}, made by an earlier step")]
    if upcoming.makes(uri):
        return {}, None, [("dataset", f"{uri}, made by an earlier step")]
    manifest = load_manifest(uri)
    images = {split: manifest.split(split).num_rows for split in splits}
    empty = [split for split, count in images.items() if not count]
    if empty:
        raise JobError(f"{uri}: split '{empty[0]}'", "has no images", "ingest some, or name another split")
    listed = ", ".join(manifest.classes[:8]) + (", …" if len(manifest.classes) > 8 else "")
    lines = [("dataset", f"{uri}: {_counts(images)}; {len(manifest.classes)} classes ({listed})")]
    return images, manifest.classes, lines + _absent_classes(manifest, splits)


def _absent_classes(manifest: Manifest, splits: tuple[str, ...]) -> list[Line]:
    """A warning for each class that a split has no object of."""
    lines = []
    for split in splits:
        counts = manifest.split(split).objects_per_class
        absent = [name for name, count in zip(manifest.classes, counts, strict=True) if count == 0]
        if absent:
            listed = ", ".join(f"'{name}'" for name in absent[:10]) + (", …" if len(absent) > 10 else "")
            lines.append(("warning", f"split '{split}' has no object of {listed}"))
    return lines


def _used_model(ref: str, registry: str | None, upcoming: Upcoming, classes: tuple | None = None,
                dataset: str = "") -> list[Line]:
    """The line about a trained model, which must know ``classes`` where they are given."""
    if upcoming.makes(ref):
        return [("model", f"{ref}, made by an earlier step")]
    loaded: LoadedModel = load_model(ref, registry)
    if classes is not None and tuple(loaded.classes) != tuple(classes):
        raise JobError(f"model {ref}", f"knows the classes {', '.join(loaded.classes[:10])}, while {dataset} has "
                                       f"{', '.join(classes[:10])}", "use a dataset with the model's classes")
    cost = _cost(loaded.model.architecture, len(loaded.classes), loaded.image_size_px)
    return [("model", f"{loaded.source}: {loaded.model.architecture.name} at {loaded.image_size_px} px: {cost}")]


def _cost(architecture: Architecture, num_classes: int, size_px: int) -> str:
    """Classes, parameters and FLOPs of the training form in words."""
    with torch.device("meta"):
        model = build_model(architecture, num_classes)
    parameters, flops = count_parameters(model), count_flops(model, size_px)
    return f"{num_classes} classes, {parameters / 1e6:.2f} M parameters, {flops / 1e9:.2f} GFLOPs per image"


def _scaled(job: TrainSpec) -> str:
    factors = [f"{key} {value:g}" for key in ("depth", "width") if (value := getattr(job.model, key)) is not None]
    return job.model.architecture + (f" ({', '.join(factors)})" if factors else "")


def _counts(images: dict[str, int]) -> str:
    return ", ".join(f"{split} {count} images" for split, count in images.items())
