"""Keys of a serve job."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from ..engines.names import EngineName, Precision
from ..jobs.spec import REFERENCE, URI, Fraction, ImageSize, Job, Name, Part, Positive, shortened
from .access.spec import Digest, Scope, Token
from .capture.spec import Capture

AccessLog = Literal["off", "errors", "sampled", "all"]
"""Requests that are logged: none, those answered 4xx or 5xx, these and one in a hundred, or all."""


WILDCARDS = ("0.0.0.0", "::")


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
    endpoint: Name = "default"
    """Name of the endpoint in the registry, which keeps the state of its roll-outs; give each of several their own."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: a free one."""
    grpc_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of the Open Inference Protocol over gRPC, for tritonclient.grpc. Ray Serve listens there at every address,
    whatever host says, so it needs tokens, or host: 0.0.0.0."""
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
    """Environment variable that holds a bearer token of every scope. Read where the job is submitted: a cluster gets
    the digest. Without any token there is no authentication."""
    token_sha256: Digest | None = None
    """The token's digest, in place of token_env."""
    tokens: dict[Name, Token] = {}
    """More tokens, by name: {ci: {env: CI_TOKEN, scopes: [detect]}}; the access log names them."""
    tokens_uri: URI | None = None
    """JSON file {"NAME": {"sha256": "…", "scopes": ["detect"]}}, read again every 10 s: tokens that come and go while
    the endpoint runs."""
    access_log: AccessLog = "off"
    """Requests with a line in the gateways' logs: off, errors, sampled (errors and one in a hundred), all."""
    capture: Capture | None = None
    """Images to keep with their answers, for labelling; default: none."""
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
    def _check_access(self) -> "ServeSpec":
        if self.token_env and self.token_sha256:
            raise ValueError("token_env and token_sha256 are both given; leave one out")
        if self.grpc_port and not self.is_guarded and self.host not in WILDCARDS:
            raise ValueError(f"grpc_port {self.grpc_port} would be open to all at every address; give tokens, or "
                             "host: 0.0.0.0 if that is meant")
        return self

    @property
    def is_guarded(self) -> bool:
        """Whether requests need a token."""
        return bool(self.token_env or self.token_sha256 or self.tokens or self.tokens_uri)


ALL_SCOPES: list[Scope] = ["detect", "admin"]


def with_digests(spec: ServeSpec) -> ServeSpec:
    """The job with digests in place of variables, which a cluster does not have; JobError if one is not set here."""
    update: dict[str, Any] = {"tokens": {name: token.digested(f"tokens.{name}.env") for name, token in spec.tokens.items()}}
    if spec.token_env is not None:
        digested = Token(env=spec.token_env).digested("token_env")
        update |= {"token_env": None, "token_sha256": digested.sha256}
    return spec.model_copy(update=update)


def tokens_of(spec: ServeSpec) -> dict[str, Token]:
    """All tokens of the job itself, as digests; that of token_env is called `token`. JobError as of `with_digests`."""
    digested = with_digests(spec)
    single = digested.token_sha256
    return ({"token": Token(sha256=single, scopes=ALL_SCOPES)} if single else {}) | digested.tokens
