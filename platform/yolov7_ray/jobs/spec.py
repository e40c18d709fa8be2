"""Common parts of job files: the base of every section, shared types, and sections that several kinds share.

Units are in the names (``_px``, ``_s``, ``_mb``); URIs are local paths or ``s3://bucket/prefix``. Each kind's own keys
are in the ``spec.py`` of its package. Hyperparameters are frozen dataclasses of ``yolov7``, embedded here.
"""

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, Self, get_args

import pydantic
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import core_schema

from yolov7.architectures.family import architecture
from yolov7.architectures.language import Architecture

from .. import storage
from ..cluster.resources import Demand, plural
from ..errors import JobError
from . import document

STRICT = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def _no_truth_value(value: Any) -> Any:
    """ValueError for true and false, which Python counts as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} does not fit; it must be a number")
    return value


def _without_truth_values(schema: Any) -> Any:
    """A core schema whose numbers, at any depth, refuse true and false."""
    if isinstance(schema, dict):
        walked = {key: _without_truth_values(value) for key, value in schema.items()}
        if schema.get("type") in ("int", "float"):
            return core_schema.no_info_before_validator_function(_no_truth_value, walked)
        return walked
    return type(schema)(map(_without_truth_values, schema)) if type(schema) in (list, tuple) else schema


def embedded(cls: type) -> type:
    """A dataclass of ``yolov7`` as a pydantic dataclass that refuses unknown keys, and truth values as numbers."""
    assert is_dataclass(cls)

    def schema(_: type, source: Any, handler: pydantic.GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return _without_truth_values(handler(source))

    checked = type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "__module__": cls.__module__,
                                          "__get_pydantic_core_schema__": classmethod(schema)})
    return pydantic.dataclasses.dataclass(checked, config=STRICT)


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]

Fraction = Annotated[float, Field(ge=0, le=1)]

Positive = Annotated[int, Field(ge=1)]

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What NumPy, PyTorch and Optuna all take."""

ImageSize = Annotated[int, Field(ge=32, le=4096)]


def _check_uri(uri: str) -> str:
    if not uri.strip():
        raise ValueError("is empty; give a local path or s3://bucket/prefix")
    scheme = re.match(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://", uri)
    if scheme and scheme.group(1) not in (*storage.SCHEMES, "file"):
        raise ValueError(f"scheme '{scheme.group(1)}' is unknown; give a local path or s3://bucket/prefix")
    return uri.removeprefix("file://")


def _check_raw_uri(uri: str) -> str:
    if not storage.is_readable(uri):
        raise ValueError(f"scheme '{uri.partition('://')[0]}' is unknown; give a local path, s3://, gs://, abfs:// or "
                         "https://")
    return storage.plain(uri) if storage.is_remote(storage.plain(uri)) else _check_uri(uri)


_AS_TEXT = BeforeValidator(lambda v: str(v) if v is not None else v)

URI = Annotated[str, _AS_TEXT, AfterValidator(_check_uri)]

RawURI = Annotated[str, _AS_TEXT, AfterValidator(_check_raw_uri)]
"""Where raw data are read: all of `URI`, and what fsspec reads."""


def shortened(value: object) -> str:
    """A value as shown in an error, at most 60 characters."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


class Part(pydantic.BaseModel):
    """Base of every section of a job file."""

    model_config = STRICT

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any,
                                     handler: pydantic.GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return _without_truth_values(handler(source))


def _check_architecture(name: str) -> str:
    try:
        return architecture(name).name
    except ValueError as error:
        raise ValueError(str(error).removeprefix("architecture ")) from None


ArchitectureName = Annotated[str, AfterValidator(_check_architecture)]


def check_image_size(key: str, size_px: int, built: Architecture) -> None:
    """ValueError that names `key` if the architecture's strides do not divide the size."""
    stride = max(built.strides)
    if size_px % stride:
        low = max(stride, size_px // stride * stride)
        raise ValueError(f"{key}: {size_px} is not a multiple of the model's largest stride {stride}; "
                         f"choose {low} or {low + stride}")


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
        """Minimum and maximum number of workers."""
        return self.workers, self.workers

    def demand(self, section: str = "resources") -> Demand:
        """The requested resources, with the keys below ``section`` of the job file that reduce them."""
        least, most = self.worker_range
        workers = plural(least, "worker") if least == most else f"{least} to {most} workers"
        return Demand(least, self.cpus_per_worker, self.gpus_per_worker, workers,
                      f"{section}.workers", f"{section}.cpus_per_worker", f"{section}.gpus_per_worker")


class Job(Part):
    """Base of every job."""

    name: Name | None = None
    """Name of the job; runs are called NAME-DATE-TIME-xxxx. Default: the job file's name."""


class LayeredJob(Job):
    """A job whose keys may lie over those of a job file."""

    job: str | None = None
    """Job file of the same kind, path or URI, or ${step.best_job}: it holds the keys that are not given here."""
    _given: dict[str, Any] | None = pydantic.PrivateAttr(None)
    """The keys beside a ``job`` that an earlier step will write; None: there is no such file."""
    _open: bool = pydantic.PrivateAttr(False)

    @property
    def is_open(self) -> bool:
        """Whether the keys of its file are not known: it is no step of a pipeline in which another writes the file."""
        return self._open

    def on(self, below: "LayeredJob") -> Self:
        """This open job with the other keys of ``below``, which is like the file. pydantic.ValidationError as ever."""
        given = {key: value for key, value in (self._given or {}).items() if key != "job"}
        filled = type(self).model_validate(document.overlaid(below.model_dump(mode="json"), given))
        filled = filled.model_copy(update={"job": self.job})
        filled._given = self._given
        return filled

    def gives(self, path: "UriPath") -> bool:
        """Whether the key at ``path`` is of this job itself."""
        section: Any = self._given
        for key in path if section is not None else ():
            if not isinstance(section, dict) or key not in section:
                return False
            section = section[key]
        return True

    @pydantic.model_serializer(mode="wrap")
    def _as_given(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        return handler(self) if self._given is None else self._given

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _over_file(cls, values: Any, handler: pydantic.ModelWrapValidatorHandler[Self]) -> Self:
        file = values.get("job") if isinstance(values, dict) else None
        if not isinstance(file, str):
            return cls._built(handler, values)
        given = {key: value for key, value in values.items() if key != "job"}
        if not REFERENCE.search(file):
            return cls._built(handler, document.overlaid(cls._read(file), given))
        required = {key: file for key, field in cls.model_fields.items() if field.is_required()} | {"kind": values["kind"]}
        if not given.keys() <= cls.model_fields.keys():
            return handler(required | given)  # which says what is wrong
        found = cls.model_construct(name=values.get("name"), job=file, **required)
        found._given, found._open = values, True
        return found

    @classmethod
    def _built(cls, handler: pydantic.ModelWrapValidatorHandler[Self], values: Any) -> Self:
        found = handler(values)
        if isinstance(values, dict):
            found._remember(values)
        return found

    def _remember(self, values: dict[str, Any]) -> None:
        """Called with the complete mapping that this job is made of."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: core_schema.CoreSchema, handler: pydantic.GetJsonSchemaHandler) -> dict:
        """Of what is required, a file may hold all but the kind."""
        schema = handler(core)
        found = handler.resolve_ref_schema(schema)
        others = [key for key in found.get("required", ()) if key != "kind"]
        found |= {"required": ["kind"], "anyOf": [{"required": others}, {"required": ["job"]}]}
        return schema

    @classmethod
    def _read(cls, file: str) -> dict[str, Any]:
        """The keys in a job file of this kind; ValueError if it is none."""
        try:
            values = document.read(file)
        except JobError as error:
            raise ValueError(f"job: {error}") from None
        if values.get("kind") not in get_args(cls.model_fields["kind"].annotation):
            raise ValueError(f"job: {file} holds a job of kind {shortened(values.get('kind'))}; give one of the same kind")
        return values


class ModelUse(Job):
    """A job that uses a trained model."""

    model: str
    """Run, checkpoint or .safetensors URI, or NAME, NAME@ALIAS, NAME:VERSION of the registry."""
    registry: URI | None = None
    """Registry in which NAME@ALIAS is looked up."""


# --- references and URIs --------------------------------------------------------------------------------

REFERENCE = re.compile(r"\$\{([^.}]*)\.([^}]*)\}")
"""``${step.output}`` inside a string of a later step."""

MODEL_KEYS = ("model", "weights")
"""Keys that hold either a URI or a name of the registry; a value with a slash is a URI."""

UriPath = tuple[str | int, ...]
"""Keys, and positions in lists, from the job down to a value."""


def uris_in(part: pydantic.BaseModel, path: UriPath = ()) -> Iterator[tuple[UriPath, str]]:
    """(path, value) of every URI in a job or a section of one; references to outputs of earlier steps are left out."""
    for key, field in type(part).model_fields.items():
        value, here = getattr(part, key), (*path, key)
        if isinstance(value, str):
            if (_is_uri(field) or key in MODEL_KEYS and "/" in value) and "${" not in value:
                yield here, value
        elif isinstance(value, pydantic.BaseModel):
            yield from uris_in(value, here)
        elif isinstance(value, dict | list):
            for name, item in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(item, pydantic.BaseModel):
                    yield from uris_in(item, (*here, name))


def _is_uri(field: pydantic.fields.FieldInfo) -> bool:
    return any(mark in URI.__metadata__ for mark in field.metadata) or URI in get_args(field.annotation)
