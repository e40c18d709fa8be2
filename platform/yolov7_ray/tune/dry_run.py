"""The dry run of a tune job: what is searched, what is known before, and what it costs."""

import random
from collections.abc import Sequence
from functools import cache

from yolov7.architectures.language import Architecture
from yolov7.model.describe import count_flops

from ..cluster.resources import plural
from ..data.dry_run import dataset_lines
from ..data.manifest import load_manifest
from ..errors import JobError
from ..jobs.kind import Line, Upcoming
from ..train.dry_run import UNKNOWN_CLASSES, train_lines
from ..train.spec import TrainSpec
from .latency import model_costs
from .search.population import QUANTILE
from .search.proposals import broken
from .search.rules import rungs_of
from .search.space import Space, Values
from .search.starts import starts
from .spec import TuneSpec

MOST_COUNTED = 24
"""Of how many models FLOPs are counted; of a larger space this many, drawn at random."""
PEAK_TFLOPS = {"NVIDIA L4": 121, "NVIDIA A100": 312, "NVIDIA H100": 989}
"""Published peak of dense bf16 multiplications."""
UTILISATION = 0.1
"""Part of the peak that training of detectors of this size reaches, about: 5 to 20 %."""
CPU_CORE_TFLOPS = 0.05
"""What training reaches on a core with AVX-512, about (tests/bench/LOG.md)."""
UNKNOWN_IMAGES = 100_000
"""Training images for which costs are told while the dataset's own number is unknown."""
TRAINING_FACTOR = 3
"""FLOPs of a training step over those of its forward pass: the backward pass takes two of them."""


def search_lines(spec: TuneSpec, upcoming: Upcoming) -> list[Line]:
    """All about the search, then the lines of the train job."""
    train, space = spec.train, Space(spec.search)
    images, classes, _ = dataset_lines(train.dataset, (train.data.train_split, train.data.val_split), upcoming)
    num_classes = len(classes or ()) or UNKNOWN_CLASSES
    hours = f", in at most {spec.budget.hours:g} hours" if spec.budget.hours else ""
    lines = [("trials", f"{spec.budget.trials}, of at most {train.epochs} epochs{hours}"), *_space_lines(spec, space)]
    lines += _rung_lines(spec)
    known = not upcoming.makes(train.dataset) and train.dataset not in upcoming.unreachable
    fingerprint = load_manifest(train.dataset).fingerprint if known else None
    reachable = [uri for uri in spec.start_with if uri not in upcoming.unreachable and not upcoming.makes(uri)]
    lines += [("start", note) for note in starts(spec.model_copy(update={"start_with": reachable}), fingerprint).notes]
    points = sampled(spec, space)
    lines += _constraint_lines(spec, points, num_classes)
    if spec.finalists:
        lines.append(("finalists", f"{plural(spec.finalists.count, 'trial')} of the front, "
                                   f"{plural(spec.finalists.epochs or train.epochs, 'epoch')}, "
                                   f"{plural(spec.finalists.seeds, 'seed')} each"))
    lines += cost_lines(spec, points, images, num_classes)
    return [*lines, *train_lines(train, upcoming)]


def sampled(spec: TuneSpec, space: Space) -> list[Values]:
    """All points of a small space, else some at random; without those that the train job refuses together. At least
    one: the train job as it is."""
    rng = random.Random(spec.seed)
    if space.num_points is not None and space.num_points <= MOST_COUNTED:
        points = list(space.points())
    else:
        points = [space.draw(rng) for _ in range(MOST_COUNTED)]
    return [point for point in points if spec.is_valid(point)] or [{}]


def _space_lines(spec: TuneSpec, space: Space) -> list[Line]:
    lines = []
    for path, distribution in spec.search.items():
        [(name, values)] = distribution.model_dump().items()
        lines.append(("search", f"{path}: {name} {', '.join(map(str, values))}"))
    if space.num_points is None:
        return [*lines, ("points", "without number; none is tried twice")]
    tried = "none is tried twice" if space.num_points > spec.budget.trials else "all are tried, each once"
    return [*lines, ("points", f"{space.num_points:,}; {tried}")]


def _rung_lines(spec: TuneSpec) -> list[Line]:
    pauses = rungs_of(spec)[:-1]
    if spec.algorithm == "population":
        return [("generations", f"{len(pauses) + 1}, of {plural(spec.generation_epochs, 'epoch')}; after each one in "
                                f"{1 / QUANTILE:.0f} goes on from the weights of a better one")]
    if spec.trains_in_full:
        return []
    if not pauses:
        return [("rungs", "none: every trial is trained in full")]
    *first, last = map(str, pauses)
    told = f"{', '.join(first)} and {last}" if first else last
    return [("rungs", f"trials pause after {told} epoch{'' if told == '1' else 's'}")]


def _constraint_lines(spec: TuneSpec, points: Sequence[Values], num_classes: int) -> list[Line]:
    """How many models keep the bounds that can be counted; JobError if none of them does."""
    if not spec.constraints:
        return []
    listed = ", ".join(f"{name} {bound}" for name, bound in spec.constraints.items())
    kept = [broken(spec, model_costs(spec.trial(point), num_classes)) for point in points]
    if points and None not in kept:
        raise JobError("constraints", f"none of {len(points)} points of the search keeps them, e.g. {kept[0]}",
                       "loosen them or widen the search")
    return [("bounds", f"{listed}: {kept.count(None)} of {len(points)} points keep those that can be counted now")]


# --- cost -----------------------------------------------------------------------------------------------


def cost_lines(spec: TuneSpec, points: Sequence[Values], images: dict[str, int], num_classes: int) -> list[Line]:
    """FLOPs of all trials in full, at the budget's share and of the finalists, and how long devices take for them."""
    train, per = spec.train, ""
    if not images.get(train.data.train_split):
        images, per = {train.data.train_split: UNKNOWN_IMAGES}, f"for each {UNKNOWN_IMAGES:,} images: "
    costs = [petaflops(spec.trial(point), images, num_classes, train.epochs) for point in points]
    mean, share = sum(costs) / len(costs), spec.share
    space = Space(spec.search)
    count = min(spec.budget.trials, space.num_points or spec.budget.trials)
    amounts = {"in full": mean * count}
    if share < 1:
        amounts[f"at share {share:g}"] = mean * count * share
    if spec.finalists:
        epochs = (spec.finalists.epochs or train.epochs) * spec.finalists.count * spec.finalists.seeds
        amounts["finalists"] = mean * epochs / train.epochs
    each = f"{number(mean)} PFLOPs a trial" + (
        f" ({number(min(costs))} to {number(max(costs))} by the model)" if max(costs) > 1.001 * min(costs) else "")
    told = "; ".join(f"{name} {number(amount)}" for name, amount in amounts.items())
    return [("compute", f"{per}{each}; {plural(count, 'trial')}: {told} PFLOPs"), hours_line(spec, amounts)]


def hours_line(spec: TuneSpec, amounts: dict[str, float]) -> Line:
    """Hours of each device for these PFLOPs."""
    gpus = spec.train.resources.gpus_per_worker
    if spec.budget.tflops:
        devices = {"a GPU" if gpus else "a CPU core": spec.budget.tflops}
        reason = f"at {spec.budget.tflops:g} TFLOPS (budget.tflops)"
    elif gpus:
        devices = {name: peak * UTILISATION for name, peak in PEAK_TFLOPS.items()}
        reason = (f"at {UTILISATION:.0%} of the published bf16 peak "
                  f"({', '.join(map(str, PEAK_TFLOPS.values()))} TFLOPS), which is rough: set budget.tflops")
    else:
        devices = {"a CPU core": CPU_CORE_TFLOPS}
        reason = f"at {CPU_CORE_TFLOPS:g} TFLOPS, which is rough: set budget.tflops"
    told = "; ".join(f"{device}: " + ", ".join(f"{name} {number(amount * 1000 / tflops / 3600, 2)}"
                                               for name, amount in amounts.items())
                     for device, tflops in devices.items())
    return ("GPU hours" if gpus else "CPU hours", f"{told}; {reason}")


def number(value: float, digits: int = 3) -> str:
    """With so many significant digits, never as a power of ten above 1."""
    return f"{value:,.0f}" if value >= 10 ** digits else f"{value:.{digits}g}"


def petaflops(job: TrainSpec, images: dict[str, int], num_classes: int, epochs: int) -> float:
    """FLOPs, in 10^15, of training a job for so many epochs, its evaluations included."""
    trained = job.data.num_chosen(images[job.data.train_split]) * TRAINING_FACTOR
    evaluated = images.get(job.data.val_split, 0) / job.evaluation.every_epochs
    return epochs * (trained + evaluated) * training_gflops(job, num_classes) / 1e6


def training_gflops(job: TrainSpec, num_classes: int) -> float:
    """GFLOPs of a forward pass of one image in training form; they grow with the square of the image's side."""
    architecture = job.build_architecture()
    size_px = architecture.default_image_size_px
    return _flops(architecture, num_classes) / 1e9 * (job.data.image_size_px / size_px) ** 2


@cache
def _flops(architecture: Architecture, num_classes: int) -> int:
    return count_flops(architecture, architecture.default_image_size_px, num_classes)
