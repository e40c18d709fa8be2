"""The dry run of a train job."""

from collections.abc import Sequence

import torch

from yolov7.architectures.language import Architecture
from yolov7.model.describe import count_parameters
from yolov7.model.detector import build_model
from yolov7.training.freeze import freeze

from ..data.doctor.report import plan_lines
from ..data.doctor.sample_check import sample_check
from ..data.dry_run import dataset_lines
from ..data.manifest import load_manifest
from ..data.reading.shard_windows import check_cache_size
from ..jobs.kind import Line, Upcoming
from ..registry.dry_run import cost_in_words
from . import starting_point
from .recipe import choice_for, filled
from .spec import TrainSpec

UNKNOWN_CLASSES = 80
"""Class count assumed for costs while the dataset's own is unknown."""


def train_lines(job: TrainSpec, upcoming: Upcoming) -> list[Line]:
    """Model, weights, dataset, findings of a quick check of it, anchors, and the number of steps."""
    size_px = job.data.image_size_px
    images, classes, lines = dataset_lines(job.dataset, (job.data.train_split, job.data.val_split), upcoming)
    if job.recipe == "auto":
        job, chosen = _recipe_lines(job, images, classes)
        lines += chosen
    known = job.model.weights and not upcoming.makes(job.model.weights) and not upcoming.unreachable
    loaded = starting_point.starting_model(job) if known else None
    architecture, num_classes = starting_point.starting_architecture(job, loaded), len(classes or ()) or UNKNOWN_CLASSES
    cost = cost_in_words(architecture, num_classes, size_px)
    when = "cannot be read now" if job.dataset in upcoming.unreachable else "are known after ingest"
    note = "" if classes else f" (with {UNKNOWN_CLASSES} classes; its own {when})"
    lines = [("model", f"{_scaled_name(job)} at {size_px} px: {cost}{note}"), *lines]
    if loaded is not None:
        taken, tensors = starting_point.count_matching_tensors(job, loaded, num_classes)
        lines.append(("weights", f"{loaded.source}, trained on {len(loaded.classes)} classes: "
                                 f"{taken} of {tensors} tensors are taken over"))
    lines += _frozen_lines(job, architecture, num_classes)
    if job.resources.gpus_per_worker and not job.data.processes(job.resources.cpus_per_worker):
        lines.append(("warning", "no process of its own reads and augments images, so the GPU waits for them: set "
                                 "resources.cpus_per_worker to 8 or more"))
    if not upcoming.makes(job.dataset) and job.dataset not in upcoming.unreachable:
        shards = load_manifest(job.dataset).split(job.data.train_split).shards
        check_cache_size(job.dataset, shards, job.data.shuffle_shards, job.data.cache_gb, job.num_reading_nodes)
        sample = sample_check(job.dataset, (job.data.train_split, job.data.val_split), architecture, size_px)
        lines += plan_lines(sample)
        if not sample.findings.num_kinds("error"):
            lines += _anchor_lines(job, architecture)
    num_images = images.get(job.data.train_split)
    if num_images:
        num_chosen = job.data.num_chosen(num_images)
        if num_chosen < num_images:
            lines.append(("images", f"{num_chosen} of the {num_images} of split '{job.data.train_split}'"))
        num_images = num_chosen
        starting_point.check_last_step(job, num_images)
        steps = -(-num_images // job.batch_size)
        per_update = max(1, round(job.nominal_batch_size / job.batch_size))
        lines.append(("steps", f"{steps} per epoch of {num_images} images in batches of {job.batch_size}, "
                               f"x {job.epochs} epochs = {steps * job.epochs}; an update every {per_update}"))
    if job.optimizer.warmup_epochs > job.epochs:
        lines.append(("warning", f"the warm-up takes {job.optimizer.warmup_epochs:g} epochs and the run {job.epochs}: "
                                 "the learning rate never reaches its peak; set optimizer.warmup_epochs lower"))
    return lines


def _recipe_lines(job: TrainSpec, images: dict[str, int], classes: Sequence[str]) -> tuple[TrainSpec, list[Line]]:
    """The job with the recipe that it will choose, as far as its data are known, and why."""
    num_images = images.get(job.data.train_split)
    if not num_images:
        return job, [("recipe", "auto: chosen once the dataset is known")]
    choice = choice_for(job, job.data.num_chosen(num_images), len(classes) or UNKNOWN_CLASSES)
    return filled(job, choice.values), [("recipe", reason) for reason in choice.reasons]


def _frozen_lines(job: TrainSpec, architecture: Architecture, num_classes: int) -> list[Line]:
    """The frozen modules, if any."""
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


def _anchor_lines(job: TrainSpec, architecture: Architecture) -> list[Line]:
    """How well the anchors fit the training boxes."""
    sizes_px = starting_point.box_sizes_px(job, load_manifest(job.dataset))
    if not len(sizes_px):
        return []
    fit = starting_point.measure_fit(architecture.anchors_px, sizes_px, job)
    if job.model.anchors == "auto":
        best = starting_point.fitted_anchors(job, sizes_px)
        return [("anchors", f"auto: {best} on {best.num_boxes} boxes (the default ones: {fit})")]
    kind = job.model.anchors if isinstance(job.model.anchors, str) else "given"
    lines = [("anchors", f"{kind}: {fit} on {fit.num_boxes} boxes")]
    if fit.recall < starting_point.LOW_RECALL:
        lines.append(("warning", f"no anchor fits {1 - fit.recall:.1%} of the boxes, which are never learnt: "
                                 "set model.anchors to auto"))
    return lines


def _scaled_name(job: TrainSpec) -> str:
    factors = [f"{key} {value:g}" for key in ("depth", "width") if (value := getattr(job.model, key)) is not None]
    return job.model.architecture + (f" ({', '.join(factors)})" if factors else "")
