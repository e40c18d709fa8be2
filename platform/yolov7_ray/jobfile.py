"""A job file and its ``--set`` overrides -> a validated job specification."""

import json
import re
import secrets
import time
from functools import cache
from pathlib import Path
from typing import Any

import pydantic

from . import diagnosis, document
from .spec import JOB, JobSpec


def load_job(path_or_text: str | Path, overrides: list[str] = []) -> JobSpec:
    """The job in a file (or in YAML text of several lines), with ``a.b=value`` overrides set.

    Raises JobError with one line per mistake: ``FILE: dotted.path: what arrived; what works``.
    """
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        where, values = "job", document.mapping(path_or_text, "job")
    else:
        where, values = str(path_or_text), document.read(path_or_text)
    paths = [document.assign(values, override) for override in overrides]
    if values.get("name") is None:
        values["name"] = _as_name(Path(where).stem)
    return validate(values, where, paths)


def validate(values: dict[str, Any], where: str, overrides: list[tuple[str, ...]] = []) -> JobSpec:
    """A plain mapping -> the job that it describes; JobError with a line for every mistake."""
    try:
        return JOB.validate_python(values)
    except pydantic.ValidationError as error:
        raise diagnosis.job_error(error, values, json_schema(), where, overrides) from None


def to_json(job: JobSpec) -> str:
    """The whole job, every default resolved; ``load_job`` of it gives the same job."""
    return json.dumps(job.model_dump(mode="json"), indent=2) + "\n"


@cache
def json_schema() -> dict:
    """JSON Schema of job files, for editors."""
    schema = JOB.json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "yolov7-ray job file"} | schema


def run_name(job: JobSpec) -> str:
    """A new, unique name for a run of this job: NAME-DATE-TIME-xxxx."""
    return f"{job.name or job.kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _as_name(stem: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:63] or "job"
