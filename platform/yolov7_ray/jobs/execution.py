"""Runs one job, from its specification to its outputs."""

import time
from typing import Any

from .. import storage
from ..cluster import local_ray, ray_errors, resources
from ..errors import JobError
from . import admission, paths
from .kinds import kind_of
from .spec import Job
from .summary import summary


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
    print(f"{run_name}: {'resuming' if resume else 'starting'} ({job.kind})", flush=True)
    print("waiting for Ray", flush=True)
    remedy = after_interrupt(job, run_name, where)
    with local_ray.start_ray(address, verbose, remedy):
        print(f"Ray is there, after {time.monotonic() - started:.1f} s", flush=True)
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
    return f"python submit.py {job_file} --resume {run_name} (and the same --set) goes on where it stopped"
