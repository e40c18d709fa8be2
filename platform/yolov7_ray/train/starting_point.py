"""What a train job starts from, determined before its first step: weights, anchors, the run that it resumes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from yolov7.architectures.language import Anchors, Architecture
from yolov7.criterion.anchors import anchor_fitness, best_possible_recall, kmeans_anchors
from yolov7.model.detector import build_model
from yolov7.training.state import fitting_weights

from .. import storage
from ..data.manifest import Manifest, dataset_root, kept_fingerprints, load_manifest, pinned
from ..data.reading.box_sizes import read_box_sizes
from ..data.reading.chosen import chosen_indices
from ..errors import JobError, NotFound
from ..jobs.resumption import Change, changes, refuse, resolved
from ..registry.model_source import LoadedModel, load_model
from .checkpoints import Checkpoints
from .recipe import with_recipe
from .spec import BETWEEN_EPOCHS, MAY_CHANGE, MUST_STAY, TrainSpec

LOW_RECALL = 0.98
"""Best possible recall below which the default anchors are a poor choice."""
MAX_BOXES = 100_000
"""Above so many boxes anchors are evaluated on a subset: enough for a recall accurate to a thousandth."""


# --- weights ------------------------------------------------------------------------------------------


def starting_model(spec: TrainSpec) -> LoadedModel | None:
    """The model whose weights training starts from; JobError unless it is in training form."""
    if spec.model.weights is None:
        return None
    loaded = load_model(spec.model.weights, spec.model.registry)
    if loaded.model.is_folded:
        raise JobError(f"model.weights: {loaded.source}", "is folded: training needs the batch norms that are gone",
                       "give the run or checkpoint that it was published from, or weights in training form")
    return loaded


def starting_architecture(spec: TrainSpec, loaded: LoadedModel | None) -> Architecture:
    """The architecture to train: by default with the anchors of the weights, if their number fits."""
    architecture = spec.build_architecture()
    if loaded is None or spec.model.anchors != "default":
        return architecture
    anchors_px = as_anchors(loaded.model.anchors_px)
    if np.shape(anchors_px) != np.shape(architecture.anchors_px):
        return architecture
    return architecture.replace(anchors_px=anchors_px)


def count_matching_tensors(spec: TrainSpec, loaded: LoadedModel, num_classes: int) -> tuple[int, int]:
    """Number of the model's tensors that start from the weights, and of all; JobError if too few fit."""
    with torch.device("meta"):
        model = build_model(starting_architecture(spec, loaded), num_classes)
    try:
        fitting = fitting_weights(model, loaded.model.state_dict())
    except ValueError as error:
        problem, _, remedy = str(error).removeprefix("model.weights: ").partition("; ")
        raise JobError(f"model.weights: {loaded.source}", problem, remedy) from None
    return len(fitting), len(model.state_dict()) - 1  # the anchors are not weights


# --- anchors ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnchorFit:
    """How well a set of anchors suits the boxes of a dataset."""

    anchors_px: Anchors
    recall: float
    """Best possible recall: share of the boxes that some anchor fits, an upper limit for training."""
    fitness: float
    """Mean similarity of a box to its best anchor."""
    num_boxes: int

    def __str__(self) -> str:
        return f"best possible recall {self.recall:.4f}, fitness {self.fitness:.3f}"


def as_anchors(values: np.ndarray | torch.Tensor) -> Anchors:
    """(L, A, 2) numbers as the tuples of an architecture."""
    return tuple(tuple((width, height) for width, height in level) for level in values.tolist())


def box_sizes_px(spec: TrainSpec, manifest: Manifest) -> np.ndarray:
    """(n, 2) width and height of the boxes that are trained on, at the training size, subsampled above MAX_BOXES."""
    num_images = manifest.split(spec.data.train_split).num_rows
    num_chosen = spec.data.num_chosen(num_images)
    chosen = chosen_indices(num_images, num_chosen) if num_chosen < num_images else None
    sizes = read_box_sizes(storage.absolute(spec.dataset), manifest, spec.data.train_split, chosen)
    return sizes[::max(1, len(sizes) // MAX_BOXES)] * spec.data.image_size_px


def measure_fit(anchors_px: Anchors, sizes_px: np.ndarray, spec: TrainSpec) -> AnchorFit:
    """The fit of these anchors to these boxes."""
    flat, threshold = np.reshape(anchors_px, (-1, 2)), spec.loss.anchor_ratio_threshold
    return AnchorFit(anchors_px, best_possible_recall(sizes_px, flat, threshold),
                     anchor_fitness(sizes_px, flat, threshold), len(sizes_px))


def fitted_anchors(spec: TrainSpec, sizes_px: np.ndarray) -> AnchorFit:
    """Anchors by k-means and evolution, or the architecture's own if these miss fewer boxes.

    The same boxes and seed give the same anchors. JobError if there are fewer boxes than anchors.
    """
    own = spec.build_architecture().anchors_px
    num_levels, num_anchors = np.shape(own)[:2]
    try:
        found = kmeans_anchors(sizes_px, num_levels * num_anchors, spec.loss.anchor_ratio_threshold, seed=spec.seed)
    except ValueError as error:
        problem, _, _ = str(error).removeprefix("kmeans_anchors: ").partition("; ")
        raise JobError("model.anchors: auto", problem, "give default, or anchors of your own") from None
    rounded = found.astype(float).round(2).clip(min=0.01).reshape(num_levels, num_anchors, 2)
    fits = [measure_fit(anchors_px, sizes_px, spec) for anchors_px in (as_anchors(rounded), own)]
    return max(fits, key=lambda fit: fit.recall)  # ties go to the fitted ones


def settled(spec: TrainSpec, run: str, log: Callable[[str], None] = lambda line: None) -> TrainSpec:
    """The job with values for all that it leaves to the data, recipe and anchors: the run's own if it has begun.

    ``log`` is told what is chosen and why.
    """
    return with_fitted_anchors(with_recipe(spec, run, log), run)


def with_fitted_anchors(spec: TrainSpec, run: str) -> TrainSpec:
    """The job with ``anchors: auto`` replaced by fitted anchors: those of the run's spec.json if it has some."""
    if spec.model.anchors != "auto":
        return spec
    try:
        anchors = storage.read_json(storage.join(run, "spec.json"))["model"].get("anchors", "auto")
    except NotFound:
        anchors = "auto"
    if isinstance(anchors, str):
        anchors = fitted_anchors(spec, box_sizes_px(spec, load_manifest(spec.dataset))).anchors_px
    return TrainSpec.model_validate(spec.model_dump(mode="json") | {
        "model": spec.model.model_dump(mode="json") | {"anchors": anchors}})


# --- the run that is resumed --------------------------------------------------------------------------

DATA_RECORD = "data.json"
"""In a run's directory: URI and fingerprint of its dataset, written before its first step."""


def record_start(spec: TrainSpec, run: str, manifest: Manifest) -> None:
    """Write what `check_resumed` compares: data and spec of the run."""
    storage.write_json(storage.join(run, DATA_RECORD), {"dataset": spec.dataset, "fingerprint": manifest.fingerprint})
    storage.write_json(storage.join(run, "spec.json"), spec.model_dump(mode="json"))


def dataset_of(spec: TrainSpec, run: str) -> str:
    """The dataset with the content that the run has begun with, also when it has grown since."""
    try:
        fingerprint = storage.read_json(storage.join(run, DATA_RECORD))["fingerprint"]
    except NotFound:
        return spec.dataset
    return pinned(storage.absolute(spec.dataset), fingerprint)


def check_resumed(spec: TrainSpec, run: str) -> list[str]:
    """What the job changes of the run, as ``key: before -> now``, and whether it begins anew.

    JobError if it changes something that the run has learnt with (all but MAY_CHANGE), or, in the middle of an
    epoch, which images are still to come, or the content of the dataset. Reads alone.
    """
    anew = [] if Checkpoints(run, 1).names() else ["checkpoints: none yet, so it begins with epoch 1"]
    try:
        earlier = storage.read_json(storage.join(run, "spec.json"))
    except NotFound:
        return anew
    spec = with_recipe(spec, run)
    found = changes(resolved(TrainSpec, earlier), spec.model_dump(mode="json"))
    if spec.model.anchors == "auto":
        found = [change for change in found if change.key != "model.anchors" or change.before == "default"]
    where = f"run {run}"
    kept = [c for c in found if not c.within((*MAY_CHANGE, *BETWEEN_EPOCHS)) or c.within(MUST_STAY)]
    refuse(where, "has learnt with", kept, "give what it has learnt with, or start a new run from its weights: "
                                           f"--set model.weights={run}")
    _check_position(run, [change for change in found if change.within(BETWEEN_EPOCHS)])
    _check_data(spec, run, earlier["dataset"])
    return [*anew, *map(str, found)]


def _check_position(run: str, found: list[Change]) -> None:
    """JobError if these changes would reorder the rest of an epoch that has begun."""
    within: list[str] = []
    names = Checkpoints(run, 1).names()
    while names and "-step-" in names[-1]:
        within.append(names.pop())
    if within:
        as_it_was = " ".join(f"--set {change.key}={change.before}" for change in found)
        back = f"to go back to {names[-1]}" if names else "to begin anew"
        refuse(f"run {run}", f"is in the middle of an epoch ({within[0]}), each image of which comes once with", found,
               f"go on with {as_it_was}, or delete {' and '.join(within)} {back}")


def _check_data(spec: TrainSpec, run: str, dataset: str) -> None:
    """JobError unless the dataset has the content that the run was trained on."""
    now, before = load_manifest(spec.dataset).fingerprint, _fingerprint(run, dataset)
    if before is None and storage.absolute(dataset) != storage.absolute(spec.dataset):
        raise JobError(f"run {run}", f"was trained on {dataset}, which is gone, and whether {spec.dataset} has the "
                       "same content cannot be told", "give that dataset, or start a new run")
    if before not in (None, now):
        root = dataset_root(spec.dataset)
        is_kept = before in [*kept_fingerprints(root), load_manifest(root).fingerprint]
        raise JobError(f"run {run}", f"was trained on data with fingerprint {before[:12]}, {spec.dataset} has "
                       f"{now[:12]}",
                       f"the dataset has changed since; go on with what it was: --set dataset={root}@{before[:12]}, or "
                       f"start a new run from its weights: --set model.weights={run}" if is_kept else
                       "give that dataset, or start a new run")


def _fingerprint(run: str, dataset: str) -> str | None:
    """Of the run's data: as recorded at its start or, by earlier versions, at its first epoch's end; else the one
    that the dataset has now. None if nothing is left."""
    for name, key in ((DATA_RECORD, "fingerprint"), ("results.json", "dataset_fingerprint")):
        try:
            return storage.read_json(storage.join(run, name))[key]
        except NotFound:
            continue
    try:
        return load_manifest(dataset).fingerprint
    except JobError:
        return None


def check_last_step(spec: TrainSpec, num_images: int) -> None:
    """JobError if what remains of an epoch after its full batches is too little for batch norm."""
    try:
        spec.check_least_batch(num_images % spec.batch_size or spec.batch_size)
    except ValueError as error:
        raise JobError(f"the last step of an epoch of {num_images} images", str(error)) from None
