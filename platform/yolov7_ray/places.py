"""The URIs in a job: made absolute for this machine, or required to mean the same on every node."""

from collections.abc import Iterator
from typing import get_args

import pydantic

from . import storage
from .data.schema import load_manifest
from .errors import JobError
from .jobfile import validate
from .spec import URI, IngestSpec, JobSpec, PipelineSpec, TuneSpec

MODEL_KEYS = ("model", "weights")
"""Keys that hold either a URI or a name of the registry; what holds a slash is a URI."""

Path = tuple[str, ...]


def uris(part: pydantic.BaseModel, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """(path, value) of every URI in a job; references to outputs of earlier steps are left out."""
    for key, field in type(part).model_fields.items():
        value, here = getattr(part, key), (*path, key)
        if isinstance(value, str):
            if (_is_uri(field) or key in MODEL_KEYS and "/" in value) and "${" not in value:
                yield here, value
        elif isinstance(value, pydantic.BaseModel):
            unused = (*here, "storage") if isinstance(part, TuneSpec) else None  # trials lie in the tune run
            yield from (found for found in uris(value, here) if found[0] != unused)
        elif isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, pydantic.BaseModel):
                    yield from uris(item, (*here, name))


def absolute(job: JobSpec) -> JobSpec:
    """The same job with every relative local path made absolute from the working directory."""
    document = job.model_dump(mode="json")
    for path, uri in uris(job):
        section = document
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = storage.absolute(uri)
    return validate(document, job.name or job.kind)


def require_shared(job: JobSpec, where: str) -> None:
    """JobError if a path depends on the working directory: the cluster's nodes do not have this one."""
    relative = [f"{where}: {'.'.join(path)}: '{uri}' is relative to this machine's working directory"
                for path, uri in uris(job) if not storage.is_remote(uri) and not uri.startswith("/")]
    if relative:
        raise JobError("", "\n".join(relative), "give s3://bucket/prefix, or an absolute path on a file system "
                                                "that all nodes share")


def check_access(job: JobSpec) -> None:
    """JobError within about 15 s if a place in S3 that the job names cannot be reached."""
    for uri in sorted({uri for _, uri in uris(job) if storage.is_remote(uri)}):
        storage.check_access(uri)


def check_datasets(job: JobSpec) -> None:
    """JobError where a dataset that the job reads is not there, and no earlier step of it makes one."""
    made = set()
    for step in job.steps.values() if isinstance(job, PipelineSpec) else [job]:
        if isinstance(step, IngestSpec):
            made.add(storage.absolute(step.dataset))
            continue
        for path, uri in uris(step):
            if path[-1] == "dataset" and storage.absolute(uri) not in made:
                load_manifest(uri)


def _is_uri(field: pydantic.fields.FieldInfo) -> bool:
    return any(mark in URI.__metadata__ for mark in field.metadata) or URI in get_args(field.annotation)
