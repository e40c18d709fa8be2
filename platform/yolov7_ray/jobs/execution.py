"""Runs one job, from its specification to its outputs, and sums it up."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import storage
from ..cluster import local_ray, ray_errors, resources
from ..errors import JobError
from ..program import command
from ..storage import lease
from . import admission, paths
from .kinds import kind_of
from .spec import Job

MAX_FIGURES = 6
"""Of an output that is a mapping, in the summary."""
OUTPUTS = "outputs: "
"""What a line of outputs for programs begins with."""


def execute(job: Job, run_name: str, *, resume: bool = False, address: str | None = None,
            admit: bool = True, verbose: bool = False, where: str = "JOB.yaml") -> dict[str, Any]:
    """Check the job in advance, start (or join) Ray, run the job, and print a summary.

    A run of that name must exist if ``resume``, and must not otherwise. ``admit=False`` skips the check that
    the cluster is large enough. ``where`` is the job file, for what a message recommends.
    """
    started = time.monotonic()
    paths.check_access(job)
    paths.check_inputs(job)
    check_run_name(job, run_name, resume)
    changed = kind_of(job).check_resume(job, run_name) if resume else []
    print("\n  ".join([f"{run_name}: {'resuming' if resume else 'starting'} ({job.kind})", *changed]), flush=True)
    print("waiting for Ray", flush=True)
    remedy = after_interrupt(job, run_name, where)
    with claimed(job, run_name), local_ray.start_ray(address, verbose, remedy):
        print(f"Ray is up after {time.monotonic() - started:.1f} s", flush=True)
        nodes = local_ray.nodes(address) if admit else None
        if nodes is not None:
            admission.check(job, resources.total(nodes), nodes)
        try:
            outputs = kind_of(job).run(job, run_name)
        except Exception as error:
            problem = ray_errors.breakdown(error)
            if problem is None:
                raise
            raise JobError(run_name, problem, remedy) from error
    print(summary(job, run_name, outputs, time.monotonic() - started), flush=True)
    return outputs


@contextmanager
def claimed(job: Job, run_name: str) -> Iterator[None]:
    """Hold the run's directory while the block runs, so that no other process goes on with the same run.

    JobError if one does. The claim of a process that died is taken over: at once if it ran on this machine, else after
    `lease.LEASE_S`.
    """
    directory = kind_of(job).run_directory(job, run_name)
    if directory is None:
        yield
        return
    remedy = f"wait until it ends, or stop it, then --resume {run_name}; or start a run of another name"
    with lease.held(directory, f"run {directory}", remedy, lambda line: print(f"{run_name}: {line}", flush=True)):
        yield


def check_run_name(job: Job, run_name: str, resume: bool) -> None:
    """JobError if a new run would silently resume an old one, or if there is nothing to resume."""
    directory = kind_of(job).run_directory(job, run_name)
    if directory is None:
        if resume:
            raise JobError(f"--resume {run_name}", f"a job of kind {job.kind} keeps no state to go on from",
                           "run it again")
        return
    exists = storage.exists(directory)
    if resume and not exists:
        raise JobError(f"--resume {run_name}", f"there is no run in {directory}",
                       "give the name that the run printed when it started")
    if exists and not resume:
        raise JobError(f"--name {run_name}", f"{directory} exists already",
                       f"go on with it by --resume {run_name}, or choose another name")


def after_interrupt(job: Job, run_name: str, job_file: str) -> str:
    """How to resume a job that was interrupted."""
    if kind_of(job).run_directory(job, run_name) is None:
        return f"run it again: a job of kind {job.kind} keeps no state"
    return f"{command(f'{job_file} --resume {run_name}')} (and the same --set) goes on where it stopped"


def summary(job: Job, run_name: str, outputs: dict[str, Any], seconds: float) -> str:
    """The outputs of a finished job, and the usual next command."""
    lines = [f"{run_name}: done in {seconds:.0f} s"]
    lines += [f"  {key:<12}{text}" for key, value in outputs.items() if (text := shown(value))]
    following = kind_of(job).next_command(job, outputs)
    return "\n".join(lines + ([f"next: {following}"] if following else []))


def json_line(outputs: dict[str, Any]) -> str:
    """The outputs as a line of JSON, for programs that read a job's log."""
    return OUTPUTS + json.dumps(outputs, default=str)


def shown(value: Any) -> str:
    """An output in one line; a page or picture on this machine as a link that opens."""
    if isinstance(value, dict):
        return headline(value)
    return Path(value).as_uri() if str(value).startswith("/") and str(value).endswith((".html", ".jpg")) else str(value)


def headline(outputs: dict[str, Any]) -> str:
    """The first figures of an output in one line."""
    figures = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {shown(value)}" for key, value in outputs.items()
               if isinstance(value, str | int | float)]
    return ", ".join(figures[:MAX_FIGURES]) + (", …" if len(figures) > MAX_FIGURES else "")
