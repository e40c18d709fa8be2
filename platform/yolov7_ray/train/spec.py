"""Keys of a train job."""

import dataclasses
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, WrapValidator, model_validator

from yolov7.architectures.family import architecture
from yolov7.architectures.language import Anchors, Architecture
from yolov7.criterion.config import LossConfig
from yolov7.images.config import AugmentConfig
from yolov7.training.config import EMAConfig, OptimizerConfig
from yolov7.training.recipes import FILLED, RECIPES

from ..evaluate.spec import Evaluation
from ..jobs.document import overlaid
from ..jobs.spec import (
    URI,
    ArchitectureName,
    ImageSize,
    LayeredJob,
    Name,
    Part,
    Positive,
    Reading,
    Resources,
    Seed,
    check_image_size,
    embedded,
)

Loss = embedded(LossConfig)

Augment = embedded(AugmentConfig)

Optimizer = embedded(OptimizerConfig)

EMA = embedded(EMAConfig)


def _check_anchors(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except pydantic.ValidationError:
        raise ValueError(f"{str(value)!r:.60} is no set of anchors; give default, auto, or for each level, fine to "
                         "coarse, a list of [width, height] in pixels") from None


class Model(Part):
    """Which detector is trained."""

    architecture: ArchitectureName = "yolov7"
    """Member of the family, e.g. yolov7-tiny, yolov7, yolov7-w6; or a baseline or ablation of the paper."""
    depth: Annotated[float, Field(ge=0.33, le=2)] | None = None
    """Depth factor of compound scaling; alone it implies the width (paper section 3.2)."""
    width: Annotated[float, Field(ge=0.25, le=2)] | None = None
    """Width factor."""
    weights: str | None = None
    """Start from these weights: a run, checkpoint or .safetensors URI, or NAME@ALIAS of the registry."""
    registry: URI | None = None
    """Registry in which NAME@ALIAS is looked up."""
    freeze: list[str] = []
    """Modules that keep their weights and batch statistics, e.g. [backbone] or [backbone.stem, backbone.stages.0]."""
    anchors: Annotated[Literal["default", "auto"] | Anchors, WrapValidator(_check_anchors)] = "default"
    """default: those of `weights`, else the architecture's; auto: fitted to the training data; or [w, h] px by
    level."""
    sync_batchnorm: bool = False
    """Share batch statistics among the workers."""

    def build_architecture(self) -> Architecture:
        """The architecture, scaled, with the anchors that are given."""
        built = architecture(self.architecture)
        if (self.depth, self.width) != (None, None):
            built = built.scaled(depth=self.depth, width=self.width)
        return built if isinstance(self.anchors, str) else built.replace(anchors_px=self.anchors)

    @model_validator(mode="after")
    def _check_levels(self) -> "Model":
        if not isinstance(self.anchors, str):
            num_levels = architecture(self.architecture).num_levels
            if [len(level) for level in self.anchors] != [len(self.anchors[0])] * num_levels or not self.anchors[0] \
                    or min(side for level in self.anchors for size in level for side in size) <= 0:
                raise ValueError(f"anchors: {self.anchors!r:.60} do not fit {self.architecture}; give {num_levels} "
                                 "levels, fine to coarse, each as many [width, height] in pixels above 0")
        return self


class Data(Reading):
    """Which samples are read, and how."""

    train_split: Name = "train"
    val_split: Name = "val"
    fraction: Annotated[float, Field(gt=0, le=1)] = 1
    """Share of the training images that is used, for trials: the same ones for every seed, and 0.1 is a part of 0.2.
    All of val_split stays."""
    max_images: Positive | None = None
    """Most training images that are used, chosen in the same way."""
    shuffle_shards: Positive | None = None
    """Go through the dataset so many shards at a time, other ones together each epoch; default: all at once.
    For datasets that are larger than the cache, and for a quick start from S3."""
    locality: Literal["global", "node"] = "global"
    """node: each node reads only its share of the shards, another one each epoch; every image still comes once, and
    each batch is drawn from all nodes. For many nodes and a dataset much larger than a node's cache. The order then
    depends on the nodes: when their number changes within an epoch, that epoch is finished in the order it began with,
    for which nodes read shards of others, and the next epoch is dealt anew."""
    image_size_px: ImageSize = 640
    """Side of the square images that the model sees; a multiple of its largest stride."""
    multi_scale: Annotated[float, Field(ge=0, lt=1)] = 0
    """Each batch is trained at a side drawn within this fraction below and above image_size_px (0: always there)."""
    image_weights: bool = False
    """Draw images with replacement, those with rare or badly found classes more often, instead of each once."""

    def num_chosen(self, num_images: int) -> int:
        """How many of a split's images are trained on."""
        return min(max(1, round(self.fraction * num_images)), self.max_images or num_images, num_images)


def _check_freeze(built: Architecture, names: list[str]) -> None:
    """ValueError unless the names are modules of this architecture; PyTorch is imported only for such a job."""
    import torch

    from yolov7.model.detector import build_model
    from yolov7.training.freeze import check_frozen

    with torch.device("meta"):
        check_frozen(build_model(built, num_classes=1), names)


def _check_workers(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except pydantic.ValidationError:
        raise ValueError(f"{str(value)!r:.60} is no number of workers; give one, or [least, most]") from None


class TrainResources(Resources):
    """What a training asks of the cluster."""

    workers: Annotated[Positive | tuple[Positive, Positive], WrapValidator(_check_workers)] = 1
    """Training processes, each with its share of the global batch. [least, most]: as many as the cluster holds, also
    when nodes leave or join; batches, updates and losses stay those of `most` workers."""
    gradient_exchange: Literal["fp32", "bf16"] = "fp32"
    """Number format in which workers send each other gradients; bf16: half the bytes, for slow networks."""
    hang_timeout_s: Annotated[float, Field(gt=0)] = 45
    """Without a step for so long, and for ten times as long as the slowest step, a worker is ended and replaced."""

    @property
    def worker_range(self) -> tuple[int, int]:
        """Minimum and maximum number of workers."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)

    @model_validator(mode="after")
    def _check_range(self) -> "TrainResources":
        least, most = self.worker_range
        if least > most:
            raise ValueError(f"workers: [{least}, {most}] asks for more at least than at most; give [least, most]")
        return self


class Checkpointing(Part):
    """Which checkpoints are kept."""

    every_epochs: Positive = 1
    """Save after every so many epochs, and after the last."""
    every_minutes: Annotated[float, Field(gt=0)] = 10
    """Save within epochs, too, when the last checkpoint is so many minutes old."""
    every_updates: Positive | None = None
    """Save within epochs after every so many updates of the weights."""
    keep_best: Positive = 2
    """How many of the best are kept beside the last two."""
    best_by: Literal["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"] = "ap"
    """Which figure of the validation split makes a checkpoint the best."""


MAY_CHANGE = ("name", "storage", "dataset", "recipe", "epochs", "nominal_batch_size", "precision", "optimizer",
              "model.registry", "data.loader_processes", "data.cache_dir", "data.cache_gb", "evaluation", "checkpoint",
              "resources", "early_stopping_epochs", "storage_patience_minutes")
"""Keys, and sections of keys, that a resumed run may change: how long, how fast and where it goes on learning. The
dataset must have the same content wherever it lies; of a recipe its values count. All other keys stay."""
MUST_STAY = ("optimizer.algorithm",)
"""Exceptions: a checkpoint holds the moments of one algorithm."""
BETWEEN_EPOCHS = ("batch_size", "seed", "data.shuffle_shards", "data.locality", "data.image_weights")
"""Keys that decide which image comes at which step, and so may change at the end of an epoch alone."""


class TrainSpec(LayeredJob):
    """Arrow dataset -> trained checkpoints, with Ray Train."""

    kind: Literal["train"]
    dataset: URI
    """Arrow dataset written by an ingest job."""
    storage: URI = "runs"
    """Directory of all runs; this one gets <storage>/<run name>."""
    model: Model = Model()
    data: Data = Data()
    recipe: Literal["auto", "small", "tiny", "p5", "p6", "custom"] = "p5"
    """Hyperparameter set that fills what optimizer, loss, augment, ema and nominal_batch_size leave open. small: for
    100 to 5,000 images; auto: chosen by images, epochs and model when the job starts, which tells its values."""
    epochs: Positive = 300
    batch_size: Positive = 16
    """Images per optimizer micro-step over all workers together."""
    nominal_batch_size: Positive = 64
    """Gradients are accumulated up to about this many images per update. Weight decay follows batch_size, not this."""
    early_stopping_epochs: Positive | None = None
    """Stop after so many epochs in which checkpoint.best_by did not rise; default: never. The learning rate has not
    fallen to its end then, so the best is often worse than that of a shorter run that ended."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on GPUs and on CPUs with bf16 units, else fp32."""
    seed: Seed = 0
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    augment: Augment = Augment()
    ema: EMA = EMA()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpointing = Checkpointing()
    storage_patience_minutes: Annotated[float, Field(gt=0)] = 15
    """How long a running training waits for storage that does not answer; no failure is used up meanwhile."""
    resources: TrainResources = TrainResources()

    _own: dict[str, Any] = pydantic.PrivateAttr(default_factory=dict)
    """What a job with ``recipe: auto`` gives of what the recipe will fill."""

    @property
    def images_per_part(self) -> int:
        """Most images that pass through the model together: the global batch is split for the most workers."""
        return -(-self.batch_size // self.resources.worker_range[1])

    @property
    def num_reading_nodes(self) -> int:
        """Most nodes that may share the reading of an epoch."""
        return self.resources.worker_range[1] if self.data.locality == "node" else 1

    def build_architecture(self) -> Architecture:
        """The architecture to train: without its auxiliary head if the loss does not use one."""
        architecture = self.model.build_architecture()
        if self.loss.auxiliary != "none" or not architecture.has_auxiliary:
            return architecture
        return architecture.replace(
            head=dataclasses.replace(architecture.head, auxiliary_channels=None, partial_auxiliary=False))

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, values: Any) -> Any:
        name = values.get("recipe", "p5") if isinstance(values, dict) else None
        return overlaid(RECIPES[name], values) if isinstance(name, str) and name in RECIPES else values

    def _remember(self, values: dict[str, Any]) -> None:
        if self.recipe == "auto":
            self._own = {key: values[key] for key in FILLED if key in values}

    @pydantic.model_serializer(mode="wrap")
    def _without_open_recipe(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """With ``recipe: auto`` only what is given of what the recipe will fill."""
        document = self._as_given(handler)
        return {key: value for key, value in document.items() if key not in FILLED or key in self._own} | self._own \
            if document.get("recipe") == "auto" else document

    @model_validator(mode="after")
    def _check_sizes(self) -> "TrainSpec":
        architecture = self.build_architecture()
        if self.model.freeze:
            _check_freeze(architecture, self.model.freeze)
        check_image_size("data.image_size_px", self.data.image_size_px, architecture)
        if self.data.shuffle_shards and not self.augment.partner_window:
            raise ValueError("augment.partner_window: 0 draws the partners of a mosaic from the whole epoch, so that "
                             "data.shuffle_shards has no use; give 32, or leave data.shuffle_shards out")
        if self.data.locality == "node" and self.data.image_weights:
            raise ValueError("data.locality: node deals each image to one node, and data.image_weights draws from all "
                             "images; give global, or leave data.image_weights out")
        least, most = self.resources.worker_range
        if self.batch_size < most:
            raise ValueError(f"batch_size: {self.batch_size} images cannot be shared by "
                             f"{most} workers; give at least one each")
        if self.model.sync_batchnorm and least < most:
            raise ValueError("model.sync_batchnorm: shares statistics among workers that change in number with "
                             f"resources.workers [{least}, {most}]; give a fixed number, or false")
        return self

    @model_validator(mode="after")
    def _check_warmup(self) -> "TrainSpec":
        warmup = self.optimizer.warmup_epochs
        if warmup > self.epochs and warmup != OptimizerConfig.warmup_epochs:  # the default may exceed a short trial
            raise ValueError(f"optimizer.warmup_epochs: {warmup:g} epochs of warm-up are more than the run has; give "
                             f"at most epochs, {self.epochs}, and better a tenth of it")
        return self

    @model_validator(mode="after")
    def _check_batch_statistics(self) -> "TrainSpec":
        most = self.resources.worker_range[1]
        if self.model.sync_batchnorm and most > 1 and not self.resources.gpus_per_worker:
            raise ValueError("model.sync_batchnorm: PyTorch shares batch statistics among GPUs alone, and "
                             "resources.gpus_per_worker is 0; give each worker a GPU, or false")
        self.check_least_batch(self.batch_size)
        return self

    def check_least_batch(self, num_images: int) -> None:
        """ValueError if a step of `num_images` leaves a worker one image whose coarsest map is a single cell.

        Batch norm has no variance of one value; PyTorch refuses it in the middle of training.
        """
        stride, most = max(self.build_architecture().strides), self.resources.worker_range[1]
        smallest_px = max(1, -(-self.data.image_size_px * (1 - self.data.multi_scale) // stride)) * stride
        if smallest_px > stride or num_images // most > 1 or self.model.sync_batchnorm and num_images > 1:
            return
        key = "data.multi_scale" if self.data.image_size_px > stride else "data.image_size_px"
        raise ValueError(f"{key}: at {smallest_px:g} px the coarsest map is 1 x 1, and a step of {num_images} images "
                         f"over {most} workers leaves one image alone, of which batch norm has no variance; keep "
                         f"images at {2 * stride} px or more, or change batch_size so that every step has {2 * most} "
                         "or more")
