"""Jobs in order: each step's outputs fill ``${step.output}`` in the steps after it."""

import time
from typing import Any

from . import storage
from .jobfile import validate
from .run import headline, run
from .spec import REFERENCE, Job, JobSpec, PipelineSpec, ServeSpec

STATE_FILE = "pipeline.json"


def run_pipeline(spec: PipelineSpec, run_name: str) -> dict[str, Any]:
    """Run every step that an earlier run of this name has not finished; return step -> outputs.

    The outputs of finished steps are kept in ``<storage>/<run_name>/pipeline.json``. An endpoint dies with the
    process or cluster that served it, so a serve step is always run.
    """
    state = storage.join(storage_of(spec), run_name, STATE_FILE)
    finished = storage.read_json(state)["finished"] if storage.exists(state) else {}
    for number, (step, job) in enumerate(spec.steps.items(), start=1):
        heading = f"[{number}/{len(spec.steps)}] {step} ({job.kind})"
        if step in finished and not isinstance(job, ServeSpec):
            print(f"{heading}: finished before", flush=True)
            continue
        print(heading, flush=True)
        started = time.monotonic()
        finished[step] = run(filled(job, finished, f"{run_name}: steps.{step}"), f"{run_name}-{step}")
        storage.write_json(state, {"finished": finished, "spec": spec.model_dump(mode="json")})
        print(f"{heading}: {headline(finished[step])} ({time.monotonic() - started:.0f} s)", flush=True)
    return {step: finished[step] for step in spec.steps}


def storage_of(spec: PipelineSpec) -> str:
    """Where the pipeline's state lies: beside the runs of its first step that has any."""
    return next((job.storage for job in spec.steps.values() if hasattr(job, "storage")), "runs")


def filled(job: Job, outputs: dict[str, dict[str, Any]], where: str) -> JobSpec:
    """The job with every ``${step.output}`` replaced."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return REFERENCE.sub(lambda match: str(outputs[match[1]][match[2]]), value)
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else value

    return validate(fill(job.model_dump(mode="json")), where)
