"""Keys of a serve job."""

import hashlib
import os
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from ..engines.names import EngineName, Precision
from ..errors import JobError
from ..jobs.spec import REFERENCE, URI, Fraction, ImageSize, Job, Name, Part, Positive, shortened

AccessLog = Literal["off", "errors", "sampled", "all"]
"""Requests that are logged: none, those answered 4xx or 5xx, these and one in a hundred, or all."""


class Autoscaling(Part):
    """As many replicas as the load needs."""

    min: Annotated[int, Field(ge=0)] = 1
    """0: the first request after a pause waits until a replica has started, a minute or more."""
    max: Positive
    target_queue: Annotated[float, Field(gt=0)] = 2
    """Requests of a replica, waiting and in work, at which it has enough."""

    @model_validator(mode="after")
    def _check_order(self) -> "Autoscaling":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class ServedModel(Part):
    model: str
    """As in other jobs: a URI, or NAME@ALIAS of the registry."""
    image_size_px: ImageSize | None = None
    """Default: as the model was trained."""
    engine: EngineName | None = None
    """Default of this and of those below: that of the job."""
    precision: Precision | Literal["auto"] | None = None
    replicas: Positive | Autoscaling | None = None
    max_batch_size: Positive | None = None
    confidence_threshold: Fraction | None = None
    iou_threshold: Fraction | None = None
    follow: bool | None = None


def _check_models(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Models by name, or a reference to them: nothing else is text."""
    if isinstance(value, str):
        if not REFERENCE.fullmatch(value):
            raise ValueError(f"{shortened(value)} does not fit; give a section of names, each with model, or "
                             "${step.models} of a publish step")
        return value
    return TypeAdapter(Models).validate_python(value)


Models = Annotated[dict[Name, ServedModel], Field(min_length=1)]
Reference = Annotated[str, Field(pattern=f"^{REFERENCE.pattern}$")]


class Probe(Part):
    """One held-out image sent over HTTP once the endpoint is ready."""

    dataset: URI
    split: Name = "val"
    index: Annotated[int, Field(ge=0)] = 0
    output: URI
    """Directory for the request's image, the drawn answer and the JSON."""


class ServeSpec(Job):
    """Registered models -> an HTTP endpoint, with Ray Serve."""

    kind: Literal["serve"]
    models: Annotated[Models | Reference, WrapValidator(_check_models)]
    """Name in the API -> model, the first is the default; or ${step.models} of a publish step."""
    registry: URI | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: a free one."""
    replicas: Positive | Autoscaling = 1
    """Replicas of each model, or {min: 1, max: 8, target_queue: 2}; at least 2 in production, so that upgrades never
    stall. Of gateways there are as many as replicas at least."""
    gpus_per_replica: Annotated[float, Field(ge=0)] = 0
    cpus_per_replica: Annotated[float, Field(gt=0)] = 1
    engine: EngineName = "torch"
    """What runs the models; auto: the fastest of those installed, as published, else measured by the replica."""
    precision: Precision | Literal["auto"] = "auto"
    """auto: with the engine auto that of the fastest published one; else bf16 on a GPU, fp32 on a CPU."""
    follow: bool = False
    """Whether replicas go on with what NAME or NAME@ALIAS refers to by then: each asks every 10 s, and changes without a
    pause. Without it the endpoint serves what it was deployed with."""
    reduced_decoding: bool = False
    """Decode JPEGs of many pixels at 1/2, 1/4 or 1/8 of their size: faster, and the pixels differ a little."""
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
    """Environment variable that holds the bearer token; none: no authentication. Read where the job is submitted:
    a cluster gets the digest."""
    token_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """The token's digest, in place of token_env."""
    access_log: AccessLog = "off"
    """Requests with a line in the gateways' logs: off, errors, sampled (errors and one in a hundred), all."""
    probe: Probe | None = None
    wait: bool = True
    """True: serve until interrupted. False: return once ready (and probed); on a cluster the endpoint stays."""

    def of(self, model: ServedModel) -> "ServedModel":
        """The keys of a model, with those of the job where it has none."""
        return ServedModel.model_validate({
            key: getattr(self, key) if value is None and key in type(self).model_fields else value
            for key, value in dict(model).items()})

    @property
    def autoscaling(self) -> dict[str, Autoscaling]:
        """Name of each model -> its range of replicas; min and max are the same where their number is fixed."""
        return {name: self.range_of(self.of(model).replicas) for name, model in self.models.items()}

    @staticmethod
    def range_of(replicas: "int | Autoscaling") -> Autoscaling:
        """Replicas as a range."""
        return replicas if isinstance(replicas, Autoscaling) else Autoscaling(min=replicas, max=replicas)

    @property
    def num_gateways(self) -> int:
        """As many as the model with the most has replicas at least; two where there may be more than one."""
        ranges = self.autoscaling.values()
        return max(max(found.min for found in ranges), 1 + any(found.max > 1 for found in ranges))

    @model_validator(mode="after")
    def _one_token(self) -> "ServeSpec":
        if self.token_env and self.token_sha256:
            raise ValueError("token_env and token_sha256 are both given; leave one out")
        return self


def token_sha256(spec: ServeSpec) -> str | None:
    """The digest of the bearer token, None without authentication; JobError if its variable is not set here."""
    if spec.token_env is None:
        return spec.token_sha256
    token = os.environ.get(spec.token_env)
    if not token:
        raise JobError("token_env", f"environment variable {spec.token_env} is not set",
                       "set it to the bearer token, or leave token_env out to serve without authentication")
    return hashlib.sha256(token.encode()).hexdigest()
