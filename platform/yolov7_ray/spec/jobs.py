"""One frozen pydantic model per kind of job: the manual of ``jobs/``."""

import dataclasses
import re
from typing import Annotated, Any, Literal, Union

import pydantic
import torch
from pydantic import Field, model_validator

from yolov7.architecture import Architecture
from yolov7.architectures import architecture
from yolov7.freeze import check_frozen
from yolov7.model import build_model
from yolov7.recipes import RECIPES

from .parts import (
    EMA, URI, ArchitectureName, Augment, Checkpointing, Data, Distribution, Evaluation, Fraction, ImageSize, Loss,
    Model, Name, Optimizer, Part, Positive, Probe, Reading, Resources, Seed, ServedModel, ShapesSource, Source,
    TrainResources, check_image_size,
)


class Job(Part):
    """Base of every job."""

    name: Name | None = None
    """Name of the job; runs are called NAME-DATE-TIME-xxxx. Default: the job file's name."""


class IngestSpec(Job):
    """Raw images and annotations -> an Arrow dataset."""

    kind: Literal["ingest"]
    source: Source = ShapesSource(format="shapes")
    """Where the raw data are, and in which format."""
    dataset: URI
    """Where the Arrow dataset is written."""
    classes: list[str] | None = None
    """Keep just these classes, in this order; objects of others are dropped and reported."""
    strict: bool = False
    """True: the first bad row stops the job. False: bad rows are dropped and listed beside the manifest."""
    shard_mb: Annotated[float, Field(gt=0, le=2048)] = 128
    """Size at which a shard is closed, in MB."""
    overwrite: bool = False
    """True: an existing dataset at this URI is replaced."""


class DoctorSpec(Job):
    """Arrow dataset -> what is wrong with it, with Ray Data."""

    kind: Literal["doctor"]
    dataset: URI
    """Arrow dataset written by an ingest job."""
    architecture: ArchitectureName = "yolov7"
    """Whose anchors are to fit the objects."""
    image_size_px: ImageSize | None = None
    """Side at which the detector will see the images. Default: the architecture's."""
    output: URI | None = None
    """Directory for a page with pictures, and JSON."""
    json_file: URI | None = None
    """Another place for the JSON."""

    @property
    def size_px(self) -> int:
        """Side at which the detector will see the images."""
        return self.image_size_px or architecture(self.architecture).default_image_size_px

    @model_validator(mode="after")
    def _check_size(self) -> "DoctorSpec":
        check_image_size("image_size_px", self.size_px, architecture(self.architecture))
        return self


class TrainSpec(Job):
    """Arrow dataset -> trained checkpoints, with Ray Train."""

    kind: Literal["train"]
    dataset: URI
    """Arrow dataset written by an ingest job."""
    storage: URI = "runs"
    """Directory of all runs; this one gets <storage>/<run name>."""
    model: Model = Model()
    data: Data = Data()
    recipe: Literal["tiny", "p5", "p6", "custom"] = "p5"
    """Hyperparameter set that fills what optimizer, loss and augment leave open."""
    epochs: Positive = 300
    batch_size: Positive = 16
    """Images per optimizer micro-step over all workers together."""
    nominal_batch_size: Positive = 64
    """Gradients are accumulated up to about this many images per update."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on GPUs and on CPUs with bf16 units, else fp32."""
    seed: Seed = 0
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    augment: Augment = Augment()
    ema: EMA = EMA()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpointing = Checkpointing()
    resources: TrainResources = TrainResources()

    @property
    def images_per_part(self) -> int:
        """Images, at most, that go through the model together: the global batch is cut for the most workers."""
        return -(-self.batch_size // self.resources.worker_range[1])

    def build_architecture(self) -> Architecture:
        """The architecture that is trained: without its auxiliary head where the loss has no use for one."""
        architecture = self.model.build_architecture()
        if self.loss.auxiliary != "none" or not architecture.has_auxiliary:
            return architecture
        return architecture.replace(
            head=dataclasses.replace(architecture.head, auxiliary_channels=None, partial_auxiliary=False))

    @model_validator(mode="before")
    @classmethod
    def _fill_from_recipe(cls, values: Any) -> Any:
        recipe = RECIPES.get(values.get("recipe", "p5")) if isinstance(values, dict) else None
        if recipe is None:
            return values
        sections = {k: v | values[k] if isinstance(values.get(k), dict) else v
                    for k, v in recipe.items() if isinstance(values.get(k, {}), dict)}
        return values | sections

    @model_validator(mode="after")
    def _check_sizes(self) -> "TrainSpec":
        architecture = self.build_architecture()
        if self.model.freeze:
            with torch.device("meta"):
                check_frozen(build_model(architecture, num_classes=1), self.model.freeze)
        check_image_size("data.image_size_px", self.data.image_size_px, architecture)
        if self.data.shuffle_shards and not self.augment.partner_window:
            raise ValueError("augment.partner_window: 0 draws the partners of a mosaic from the whole epoch, so that "
                             "data.shuffle_shards has no use; give 32, or leave data.shuffle_shards out")
        least, most = self.resources.worker_range
        if self.batch_size < most:
            raise ValueError(f"batch_size: {self.batch_size} images cannot be shared by "
                             f"{most} workers; give at least one each")
        if self.model.sync_batchnorm and least < most:
            raise ValueError("model.sync_batchnorm: shares statistics among workers that change in number with "
                             f"resources.workers [{least}, {most}]; give a fixed number, or false")
        return self


class ModelUse(Job):
    """A job that uses a trained model."""

    model: str
    """Run, checkpoint or .safetensors URI, or NAME, NAME@ALIAS, NAME:VERSION of the registry."""
    registry: URI | None = None
    """Registry in which NAME@ALIAS is looked up."""


class EvaluateSpec(ModelUse):
    """Model x dataset split -> COCO AP, plots and results.json."""

    kind: Literal["evaluate"]
    dataset: URI
    split: Name = "val"
    storage: URI = "runs"
    """Results go to <storage>/<run name>."""
    image_size_px: ImageSize | None = None
    """Default: as the model was trained."""
    data: Reading = Reading()
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()


class TuneSpec(Job):
    """A train job x search space -> trials, the best configuration and the front AP against FLOPs."""

    kind: Literal["tune"]
    train: TrainSpec
    """The job that each trial runs, with the trial's values set."""
    search: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Dotted path of the train job -> distribution, e.g. optimizer.learning_rate: {loguniform: [1e-3, 1e-1]}."""
    storage: URI = "runs"
    trials: Positive = 20
    max_concurrent_trials: Positive | None = None
    """Default: as many as the cluster holds."""
    grace_epochs: Positive = 1
    """ASHA stops no trial before this epoch."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """ASHA keeps one in so many at each rung."""
    seed: Seed = 0

    def trial(self, values: dict[str, Any]) -> TrainSpec:
        """The train job with the values of one trial set, validated anew."""
        document = self.train.model_dump(mode="json") | {"storage": self.storage}
        for path, value in values.items():
            section, keys = document, path.split(".")
            for key in keys[:-1]:
                section = section.get(key) if isinstance(section, dict) else None
            if not isinstance(section, dict) or keys[-1] not in section:
                raise ValueError(f"search.{path}: is no key of the train job; "
                                 "give a dotted path such as optimizer.learning_rate or model.width")
            section[keys[-1]] = value
        return TrainSpec.model_validate(document)

    @property
    def searches_architecture(self) -> bool:
        """Whether trials differ in cost, so that AP is weighed against FLOPs."""
        return any(path.startswith("model.") or path == "data.image_size_px" for path in self.search)

    @model_validator(mode="after")
    def _check_search(self) -> "TuneSpec":
        if isinstance(self.train.resources.workers, tuple):
            raise ValueError(f"train.resources.workers: {list(self.train.resources.workers)} would change within a "
                             "trial; give one number, trials share the cluster as it is")
        for path, distribution in self.search.items():
            for value in distribution.bounds():
                try:
                    self.trial({path: value})
                except pydantic.ValidationError as error:
                    first = error.errors()[0]
                    raise ValueError(f"search.{path}: {value} is refused by the train job: {first['msg']}") from None
        return self


class PublishSpec(ModelUse):
    """Checkpoint -> folded, checked, registered version; alias moved."""

    kind: Literal["publish"]
    registry: URI
    """Where versions are registered."""
    publish_as: Name
    """Name of the registered model."""
    alias: Name | None = "latest"
    """Alias moved to the new version."""
    dataset: URI | None = None
    """Dataset on whose split parity and AP of the folded model are measured."""
    split: Name = "val"
    image_size_px: ImageSize | None = None
    """Default: as the model was trained."""
    data: Reading = Reading()
    parity_tolerance: Annotated[float, Field(gt=0)] = 1e-3
    """Largest relative difference of folded against trained outputs that is accepted."""


class PredictSpec(ModelUse):
    """Model x images -> detections, with Ray Data."""

    kind: Literal["predict"]
    images: URI
    """A directory of images, or an Arrow dataset."""
    split: Name = "val"
    """Split, where `images` is an Arrow dataset."""
    output: URI
    """Directory for the results."""
    format: Literal["arrow", "coco"] = "arrow"
    image_size_px: ImageSize | None = None
    """Default: as the model was trained."""
    confidence_threshold: Fraction = 0.25
    iou_threshold: Fraction = 0.45
    multi_label: bool = True
    """Whether one box may stand for several classes."""
    class_agnostic: bool = False
    """Whether boxes suppress boxes of other classes too."""
    test_time_augmentation: bool = False
    """Look at every image in three scales, once mirrored: better, at 2.1 times the cost."""
    batch_size: Positive = 16
    resources: Resources = Resources()


class ServeSpec(Job):
    """Registered models -> an HTTP endpoint, with Ray Serve."""

    kind: Literal["serve"]
    models: Annotated[dict[Name, ServedModel], Field(min_length=1)]
    """Name in the API -> model; the first is the default."""
    registry: URI | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: a free one."""
    replicas: Positive = 1
    """Replicas of each model; at least 2 in production, so that upgrades never stall."""
    gpus_per_replica: Annotated[float, Field(ge=0)] = 0
    cpus_per_replica: Annotated[float, Field(gt=0)] = 1
    max_batch_size: Positive = 8
    batch_wait_ms: Annotated[float, Field(ge=0)] = 2
    """How long a request waits for others to share its batch."""
    confidence_threshold: Fraction = 0.25
    iou_threshold: Fraction = 0.45
    max_request_mb: Annotated[float, Field(gt=0)] = 20
    max_image_megapixels: Annotated[float, Field(gt=0)] = 50
    """Larger images are refused before they are decoded."""
    max_queued_requests: Positive = 64
    """Per model; more are answered 503."""
    token_env: str | None = None
    """Environment variable that holds the bearer token; none: no authentication."""
    probe: Probe | None = None
    wait: bool = True
    """True: serve until interrupted. False: return once ready (and probed); on a cluster the endpoint stays."""


AnyJob = Annotated[
    Union[IngestSpec, DoctorSpec, TrainSpec, EvaluateSpec, TuneSpec, PublishSpec, PredictSpec, ServeSpec],
    Field(discriminator="kind"),
]

OUTPUTS: dict[str, tuple[str, ...]] = {
    "ingest": ("dataset", "fingerprint"),
    "doctor": ("dataset",),
    "train": ("run", "checkpoint"),
    "evaluate": ("run",),
    "tune": ("run", "best_job"),
    "publish": ("model", "version"),
    "predict": ("output",),
    "serve": ("url",),
}
"""What each kind of job hands to the later steps of a pipeline."""

REFERENCE = re.compile(r"\$\{([^.}]*)\.([^}]*)\}")
"""``${step.output}`` inside a string of a later step."""


class PipelineSpec(Job):
    """Jobs in order; later steps refer to earlier outputs as ${step.output}."""

    kind: Literal["pipeline"]
    steps: Annotated[dict[Name, AnyJob], Field(min_length=1)]
    """Step name -> job, run in this order."""

    @model_validator(mode="after")
    def _check_references(self) -> "PipelineSpec":
        known: dict[str, str] = {}
        for step, job in self.steps.items():
            for source, output in REFERENCE.findall(job.model_dump_json()):
                if source not in known:
                    raise ValueError(f"steps.{step}: ${{{source}.{output}}} names no earlier step; "
                                     f"earlier steps are {', '.join(known) or 'none'}")
                if output not in OUTPUTS[known[source]]:
                    raise ValueError(f"steps.{step}: step '{source}' ({known[source]}) has no output '{output}'; "
                                     f"it has {', '.join(OUTPUTS[known[source]])}")
            known[step] = job.kind
        return self


JobSpec = Annotated[
    Union[IngestSpec, DoctorSpec, TrainSpec, EvaluateSpec, TuneSpec, PublishSpec, PredictSpec, ServeSpec, PipelineSpec],
    Field(discriminator="kind"),
]

JOB = pydantic.TypeAdapter(JobSpec)
KINDS: dict[str, type[Job]] = {
    "ingest": IngestSpec, "doctor": DoctorSpec, "train": TrainSpec, "evaluate": EvaluateSpec,
    "tune": TuneSpec, "publish": PublishSpec, "predict": PredictSpec, "serve": ServeSpec, "pipeline": PipelineSpec,
}
