"""Every key that a job file may hold."""

from .jobs import (
    JOB, KINDS, OUTPUTS, REFERENCE, DoctorSpec, EvaluateSpec, IngestSpec, Job, JobSpec, ModelUse, PipelineSpec,
    PredictSpec, PublishSpec, ServeSpec, TrainSpec, TuneSpec,
)
from .parts import (
    URI, Choice, CocoSource, Data, Distribution, Evaluation, Integer, LogUniform, Model, Probe, Quantized,
    Reading, Resources, ServedModel, ShapesSource, Source, Uniform, VocSource, YoloSource,
)

__all__ = [name for name in dir() if name[0].isupper()]
