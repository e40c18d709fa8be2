"""The sections that job files are made of.

Units stand in the names (``_px``, ``_s``, ``_mb``); URIs are local paths or ``s3://bucket/prefix``.
Hyperparameters live beside their owners in ``yolov7`` as frozen dataclasses and are embedded here.
"""

import re
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union

import pydantic
from pydantic import (
    AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints, WrapValidator, model_validator,
)

from yolov7.architecture import Anchors, Architecture
from yolov7.architectures import architecture
from yolov7.augment import AugmentConfig
from yolov7.ema import EMAConfig
from yolov7.loss import LossConfig
from yolov7.optim import OptimizerConfig

_STRICT = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _embedded(cls: type) -> type:
    """A stdlib dataclass of ``yolov7`` as a pydantic dataclass that refuses unknown keys."""
    assert is_dataclass(cls)
    return pydantic.dataclasses.dataclass(cls, config=_STRICT)


Loss = _embedded(LossConfig)
Augment = _embedded(AugmentConfig)
Optimizer = _embedded(OptimizerConfig)
EMA = _embedded(EMAConfig)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
ImageSize = Annotated[int, Field(ge=32, le=4096)]


def _check_uri(uri: str) -> str:
    if not uri.strip():
        raise ValueError("is empty; give a local path or s3://bucket/prefix")
    scheme = re.match(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://", uri)
    if scheme and scheme.group(1) not in ("s3", "file"):
        raise ValueError(f"scheme '{scheme.group(1)}' is unknown; give a local path or s3://bucket/prefix")
    return uri.removeprefix("file://")


URI = Annotated[str, BeforeValidator(lambda v: str(v) if v is not None else v), AfterValidator(_check_uri)]


class Part(pydantic.BaseModel):
    """Base of every section of a job file."""

    model_config = _STRICT


class CocoSplit(Part):
    images: str
    """Directory of the images, relative to the source's uri."""
    annotations: str
    """COCO instances JSON, relative to the source's uri."""


class CocoSource(Part):
    """COCO JSON annotations."""

    format: Literal["coco"]
    uri: URI
    """Root of the data."""
    splits: dict[Name, CocoSplit] = {
        "train": CocoSplit(images="train2017", annotations="annotations/instances_train2017.json"),
        "val": CocoSplit(images="val2017", annotations="annotations/instances_val2017.json"),
    }
    """Split name -> images and annotations."""


class YoloSource(Part):
    """YOLO text labels: images/…/x.jpg beside labels/…/x.txt (class cx cy w h, normalised; polygons too)."""

    format: Literal["yolo"]
    uri: URI
    """Root of the data."""
    splits: dict[Name, str] = {"train": "images/train", "val": "images/val"}
    """Split name -> directory of images (or a .txt list of images), relative to uri."""
    classes: list[str] | None = None
    """Class names in index order; default: `names` of data.yaml, or classes.txt, under uri."""


class VocSource(Part):
    """Pascal VOC XML: JPEGImages/, Annotations/, ImageSets/Main/SPLIT.txt."""

    format: Literal["voc"]
    uri: URI
    """Root of the data (the directory that holds JPEGImages)."""
    splits: dict[Name, str] = {"train": "ImageSets/Main/train.txt", "val": "ImageSets/Main/val.txt"}
    """Split name -> image list, relative to uri."""
    classes: list[str] | None = None
    """Class names in index order; default: all that occur, sorted."""


class ShapesSource(Part):
    """Generated detection data: coloured, rotated, overlapping shapes on textured ground."""

    format: Literal["shapes"]
    splits: dict[Name, Positive] = {"train": 1000, "val": 200}
    """Split name -> number of images."""
    image_size_px: ImageSize = 160
    """Side of the square images."""
    seed: Seed = 0
    """Another seed, another data set."""


Source = Annotated[Union[CocoSource, YoloSource, VocSource, ShapesSource], Field(discriminator="format")]


def _check_architecture(name: str) -> str:
    try:
        return architecture(name).name
    except ValueError as error:
        raise ValueError(str(error).removeprefix("architecture ")) from None


ArchitectureName = Annotated[str, AfterValidator(_check_architecture)]


def check_image_size(key: str, size_px: int, built: Architecture) -> None:
    """ValueError that names `key` where the architecture's strides do not divide the size."""
    stride = max(built.strides)
    if size_px % stride:
        low = max(stride, size_px // stride * stride)
        raise ValueError(f"{key}: {size_px} is not a multiple of the model's largest stride {stride}; "
                         f"choose {low} or {low + stride}")


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
    """Depth factor of compound scaling; alone it implies the width (paper section 4.2)."""
    width: Annotated[float, Field(ge=0.25, le=2)] | None = None
    """Width factor."""
    weights: str | None = None
    """Start from these weights: a run, checkpoint or .safetensors URI, or NAME@ALIAS of the registry."""
    registry: URI | None = None
    """Registry in which NAME@ALIAS is looked up."""
    freeze: list[str] = []
    """Modules that keep their weights and batch statistics, e.g. [backbone] or [backbone.stem, backbone.stages.0]."""
    anchors: Annotated[Literal["default", "auto"] | Anchors, WrapValidator(_check_anchors)] = "default"
    """default: those of `weights`, else the architecture's; auto: fitted to the training data; or [w, h] px by level."""
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


class Reading(Part):
    """How shards reach the workers."""

    loader_processes: Annotated[int, Field(ge=0, le=64)] | None = None
    """Loader processes per worker; default: the worker's CPUs less one, at most 16."""
    cache_dir: str | None = None
    """Directory on each node for shards from S3; default: $YOLOV7_CACHE_DIR or ~/.cache/yolov7-ray."""
    cache_gb: Annotated[float, Field(gt=0)] = 200
    """Most that the node's cache may hold, in GB; the least recently used shards go first."""

    def processes(self, cpus_per_worker: float) -> int:
        """Loader processes of a worker with so many CPUs."""
        return max(0, min(16, int(cpus_per_worker) - 1)) if self.loader_processes is None else self.loader_processes


class Data(Reading):
    """Which samples are read, and how."""

    train_split: Name = "train"
    val_split: Name = "val"
    shuffle_shards: Positive | None = None
    """Go through the dataset so many shards at a time, other ones together each epoch; default: all at once.
    For datasets that are larger than the cache, and for a quick start from S3."""
    image_size_px: ImageSize = 640
    """Side of the square images that the model sees; a multiple of its largest stride."""
    multi_scale: Annotated[float, Field(ge=0, lt=1)] = 0
    """Each batch is trained at a side drawn within this fraction below and above image_size_px (0: always there)."""
    image_weights: bool = False
    """Draw images with replacement, those with rare or badly found classes more often, instead of each once."""


class Resources(Part):
    """What the job asks of the cluster."""

    workers: Positive = 1
    """Processes, each with its share of the images."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """GPUs of each worker (0: CPU)."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    """CPUs of each worker, its loader processes included."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """How many times in a row, without progress in between, lost workers are replaced; -1: without end."""

    @property
    def worker_range(self) -> tuple[int, int]:
        """The least and the most workers."""
        return self.workers, self.workers


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
    hang_timeout_s: Annotated[float, Field(gt=0)] = 45
    """Without a step for so long, and for ten times as long as the slowest step, a worker is ended and replaced."""

    @property
    def worker_range(self) -> tuple[int, int]:
        """The least and the most workers."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)

    @model_validator(mode="after")
    def _check_range(self) -> "TrainResources":
        least, most = self.worker_range
        if least > most:
            raise ValueError(f"workers: [{least}, {most}] asks for more at least than at most; give [least, most]")
        return self


class Evaluation(Part):
    """How validation is done."""

    every_epochs: Positive = 1
    """Validate after every so many epochs, and after the last."""
    batch_size: Positive | None = None
    """Images per worker and step; default: that of training."""
    confidence_threshold: Fraction = 0.001
    """Detections below are dropped before NMS."""
    iou_threshold: Fraction = 0.65
    """Overlap at which NMS drops the weaker of two detections."""
    multi_label: bool = True
    """Whether one box may stand for several classes."""
    class_agnostic: bool = False
    """Whether boxes suppress boxes of other classes too."""
    rectangular: bool = False
    """Pad images to their batch's common shape instead of a square: quicker, and the AP moves a little."""
    test_time_augmentation: bool = False
    """Look at every image in three scales, once mirrored: a better AP at 2.1 times the cost."""


class Checkpointing(Part):
    """Which checkpoints are kept."""

    every_epochs: Positive = 1
    """Save after every so many epochs, and after the last."""
    every_minutes: Annotated[float, Field(gt=0)] = 10
    """Save within epochs, too, when the last checkpoint is so many minutes old."""
    every_updates: Positive | None = None
    """Save within epochs after every so many updates of the weights."""
    keep_best: Positive = 2
    """How many of the best (by AP) are kept beside the last two."""


class Uniform(Part):
    """A float between two bounds."""

    uniform: tuple[float, float]

    def bounds(self) -> tuple:
        return self.uniform


class LogUniform(Part):
    """A float between two bounds, uniform in its logarithm."""

    loguniform: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]

    def bounds(self) -> tuple:
        return self.loguniform


class Integer(Part):
    """A whole number, both ends included."""

    integer: tuple[int, int]

    def bounds(self) -> tuple:
        return self.integer


class Quantized(Part):
    """A float between two bounds, in steps: [low, high, step]."""

    quantized: tuple[float, float, Annotated[float, Field(gt=0)]]

    def bounds(self) -> tuple:
        return self.quantized[:2]


class Choice(Part):
    """One of the listed values."""

    choice: Annotated[list[Any], Field(min_length=1)]

    def bounds(self) -> tuple:
        return tuple(self.choice)


Distribution = Union[Uniform, LogUniform, Integer, Quantized, Choice]


class ServedModel(Part):
    model: str
    """As in other jobs: a URI, or NAME@ALIAS of the registry."""
    image_size_px: ImageSize | None = None
    """Default: as the model was trained."""


class Probe(Part):
    """One held-out image sent over HTTP once the endpoint is ready."""

    dataset: URI
    split: Name = "val"
    index: Annotated[int, Field(ge=0)] = 0
    output: URI
    """Directory for the request's image, the drawn answer and the JSON."""
