"""The table of kinds. A new kind is one line here, and one module ``job.py`` that defines its `KIND`."""

import importlib
from typing import Any

from .kind import JobKind
from .spec import Job

KINDS = {
    "ingest": "yolov7_ray.data.ingest.job",
    "doctor": "yolov7_ray.data.doctor.job",
    "train": "yolov7_ray.train.job",
    "evaluate": "yolov7_ray.evaluate.job",
    "tune": "yolov7_ray.tune.job",
    "publish": "yolov7_ray.registry.job",
    "export": "yolov7_ray.registry.export.job",
    "predict": "yolov7_ray.predict.job",
    "serve": "yolov7_ray.serve.job",
    "export-dataset": "yolov7_ray.data.export.job",
    "pipeline": "yolov7_ray.jobs.pipeline",
}
"""``kind:`` of a job file -> module that defines its `KIND`, imported when a job of that kind is loaded."""


def kind_named(name: str) -> JobKind[Any]:
    """The kind of that name, which must be one of `KINDS`."""
    return importlib.import_module(KINDS[name]).KIND


def kind_of(job: Job) -> JobKind[Any]:
    """The kind of a job."""
    return kind_named(job.kind)
