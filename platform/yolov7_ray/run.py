"""One job, from its specification to its outputs: the dispatcher to the rooms."""

import importlib
import time
from typing import Any

from . import admission, places, session, storage
from .errors import JobError
from .spec import JobSpec

ROOMS = {
    "ingest": "data.ingest:ingest",
    "doctor": "data.doctor.report:doctor",
    "train": "train.trainer:train",
    "evaluate": "train.evaluate:evaluate",
    "tune": "tune.tuner:tune",
    "publish": "registry.publish:publish",
    "predict": "predict:predict",
    "serve": "serve.app:serve",
    "pipeline": "pipeline:run_pipeline",
}
"""Kind of job -> the function ``(spec, run_name) -> outputs`` that runs it."""


def run(spec: JobSpec, run_name: str) -> dict[str, Any]:
    """Run a job on the Ray that is up; return its outputs."""
    module, function = ROOMS[spec.kind].split(":")
    return getattr(importlib.import_module(f".{module}", __package__), function)(spec, run_name)


def execute(spec: JobSpec, run_name: str, *, resume: bool = False, address: str | None = None,
            admit: bool = True, verbose: bool = False) -> dict[str, Any]:
    """Check what can be checked beforehand, start (or join) Ray, run the job, and say what came of it.

    A run of that name must exist if ``resume``, and must not otherwise. ``admit=False`` skips the check that
    the cluster is large enough.
    """
    started = time.monotonic()
    places.check_access(spec)
    places.check_datasets(spec)
    check_run_name(spec, run_name, resume)
    print(f"{run_name}: {'resuming' if resume else 'starting'} ({spec.kind})", flush=True)
    with session.start_ray(address, verbose):
        nodes = session.nodes(address) if admit else None
        if nodes is not None:
            admission.check(spec, session.total(nodes), nodes)
        outputs = run(spec, run_name)
    print(summary(spec, run_name, outputs, time.monotonic() - started), flush=True)
    return outputs


def run_directory(spec: JobSpec, run_name: str) -> str | None:
    """URI of the directory in which this run keeps its state; None for kinds that keep none."""
    if spec.kind == "pipeline":
        from .pipeline import storage_of

        return storage.join(storage_of(spec), run_name)
    return storage.join(spec.storage, run_name) if hasattr(spec, "storage") else None


def check_run_name(spec: JobSpec, run_name: str, resume: bool) -> None:
    """JobError if a new run would silently go on with an old one, or if there is nothing to go on with."""
    directory = run_directory(spec, run_name)
    if directory is None:
        if resume:
            raise JobError(f"--resume {run_name}", f"a job of kind {spec.kind} keeps no state to go on from",
                           "run it again")
        return
    exists = storage.exists(directory)
    if resume and not exists:
        raise JobError(f"--resume {run_name}", f"there is no run in {directory}",
                       "give the name that the run printed when it started")
    if exists and not resume:
        raise JobError(f"--name {run_name}", f"{directory} exists already",
                       f"go on with it by --resume {run_name}, or choose another name")


def after_interrupt(spec: JobSpec, run_name: str, job_file: str) -> str:
    """How to go on with a job that was interrupted."""
    if run_directory(spec, run_name) is None:
        return f"run it again: a job of kind {spec.kind} keeps no state"
    return f"python submit.py {job_file} --resume {run_name} (and the same --set) goes on where it stopped"


def summary(spec: JobSpec, run_name: str, outputs: dict[str, Any], seconds: float) -> str:
    """What a finished job made, and what one may do next."""
    lines = [f"{run_name}: done in {seconds:.0f} s"]
    for key, value in outputs.items():
        lines.append(f"  {key:<12}{headline(value) if isinstance(value, dict) else value}")
    step = next_step(spec, outputs)
    return "\n".join(lines + ([f"next: {step}"] if step else []))


def headline(outputs: dict[str, Any]) -> str:
    """Outputs in one line."""
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in outputs.items()
             if isinstance(value, str | int | float)}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def next_step(spec: JobSpec, outputs: dict[str, Any]) -> str:
    """The command that usually follows a job of this kind."""
    match spec.kind:
        case "ingest":
            return f"python submit.py new train my-train.yaml, and set `dataset: {outputs['dataset']}` in it"
        case "train":
            return f"python submit.py jobs/publish-detector.yaml --set model={outputs['run']}"
        case "tune":
            return f"python submit.py {outputs['best_job']}"
        case "publish":
            return _serve_command(outputs["model"], spec.registry)
        case "serve":
            first = next(iter(spec.models.values()))
            return f"{_serve_command(first.model, spec.registry)} keeps an endpoint up"
        case "pipeline":
            from .pipeline import filled

            step, job = list(spec.steps.items())[-1]
            return next_step(filled(job, outputs, step), outputs[step])
    return ""


def _serve_command(model: str, registry: str | None) -> str:
    where = f" --set registry={registry}" if registry else ""
    return f"python submit.py jobs/serve-detector.yaml --set models.detector.model={model}{where}"
