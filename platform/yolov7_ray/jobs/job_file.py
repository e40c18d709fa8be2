"""A job file and its ``--set`` overrides -> a validated job specification."""

import json
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Union

import pydantic
from pydantic import Field, TypeAdapter

from . import document, validation_errors
from .kinds import KINDS, kind_named
from .spec import Job


def load_job(path_or_text: str | Path, overrides: list[str] = []) -> Job:
    """The job in a file (or in YAML text of several lines), with ``a.b=value`` overrides set.

    Raises JobError with one line per validation error: ``FILE: dotted.path: what arrived; what works``.
    """
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        where, values = "job", document.mapping(path_or_text, "job")
    else:
        where, values = str(path_or_text), document.read(path_or_text)
    paths = [document.assign(values, override) for override in overrides]
    if values.get("name") is None:
        values["name"] = _as_name(Path(where).stem)
    return validate(values, where, paths)


def validate(values: dict[str, Any], where: str = "job", overrides: list[tuple[str, ...]] = []) -> Job:
    """A plain mapping -> the job that it describes; JobError with a line for every validation error."""
    try:
        return validated_by_kind(values, KINDS)
    except pydantic.ValidationError as error:
        schema = kind_named(values["kind"]).spec.model_json_schema()
        raise validation_errors.job_error(error, values, schema, where, overrides) from None
    except ValueError as error:
        raise validation_errors.from_value_error(error, where, overrides) from None


def validated_by_kind(values: Any, names: Iterable[str]) -> Job:
    """The job that ``values`` describes, validated by its own kind alone, which must be one of ``names``.

    pydantic.ValidationError for invalid keys and values; ValueError for a wrong kind.
    """
    if isinstance(values, Job):
        return values
    if not isinstance(values, dict):
        raise ValueError(f"{values!r:.60} does not fit; give a section of keys that begins with kind")
    if "kind" not in values:
        raise ValueError(f"kind: is missing; choose {', '.join(names)}")
    if not isinstance(values["kind"], str) or values["kind"] not in names:
        raise ValueError(f"kind: '{values['kind']}' is unknown; choose {', '.join(names)}")
    return kind_named(values["kind"]).spec.model_validate(values)


def to_json(job: Job) -> str:
    """The whole job, every default resolved; ``load_job`` of it gives the same job."""
    return json.dumps(job.model_dump(mode="json"), indent=2) + "\n"


def any_of(names: Iterable[str]) -> Any:
    """The type of a job of any of these kinds."""
    return Annotated[Union[tuple(kind_named(name).spec for name in names)], Field(discriminator="kind")]


def json_schema() -> dict[str, Any]:
    """JSON Schema of job files, for editors."""
    schema = TypeAdapter(any_of(KINDS)).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "yolov7-ray job file"} | schema


def run_name(job: Job) -> str:
    """A new, unique name for a run of this job: NAME-DATE-TIME-xxxx."""
    return f"{job.name or job.kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _as_name(stem: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:63] or "job"
