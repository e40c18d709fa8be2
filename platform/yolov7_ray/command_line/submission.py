"""`submit` of Python: a job that runs here or on a cluster, driven from a notebook, a script or a scheduler."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import storage
from ..errors import JobError, NotFound
from ..jobs import document, job_file
from ..jobs.execution import OUTPUTS
from ..jobs.kinds import kind_of
from ..jobs.paths import absolute, require_shared

if TYPE_CHECKING:
    import pandas

Status = Literal["running", "succeeded", "failed", "stopped"]
STATUS: dict[str, Status] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}
POLL_S = 0.5
EXIT_INTERRUPTED = 130


def submit(job: str | Path | Mapping[str, Any], *, set: Mapping[str, Any] | None = None,  # noqa: A002
           address: str | None = None, name: str | None = None, resume: str | None = None,
           insecure: bool = False) -> "Submission":
    """Start a job and return at once.

    ``job``: path or URI of a job file, or its keys. ``set``: dotted key -> value over them, as ``--set``. ``address``:
    dashboard of a Ray cluster; None: here, in a process of its own. ``name``: of the run;
    ``resume``: name of the run that goes on. JobError as on the command line: where, what arrived, what works.

        run = submit("jobs/quickstart.yaml", set={"steps.train.epochs": 20})
        print(run.wait()["url"])
    """
    overrides = [f"{key}={json.dumps(value)}" for key, value in (set or {}).items()]
    if isinstance(job, Mapping):
        values, where = dict(job), "job"
        for override in overrides:
            document.assign(values, override)
        spec = job_file.validate(values)
    else:
        where = str(job)
        spec = job_file.load_job(where, overrides)
    run = resume or name or job_file.run_name(spec)
    if address is None:
        return LocalSubmission(absolute(spec), run, resume is not None)
    require_shared(spec, where)
    return ClusterSubmission(spec, run, resume is not None, address, insecure)


class Submission:
    """A job that was submitted. Its run's rows of epochs, or of trials, are there while it goes on."""

    def __init__(self, job: Any, run: str) -> None:
        self.job, self.run = job, run
        self.directory = kind_of(job).run_directory(job, run)
        """Where the run keeps its state; None: this kind keeps none."""

    @property
    def status(self) -> Status:
        """running, succeeded, failed or stopped."""
        raise NotImplementedError

    def logs(self) -> str:
        """What the job has printed so far."""
        raise NotImplementedError

    def stop(self) -> Status:
        """Stop the job as Ctrl-C does, so that it saves; its status afterwards."""
        raise NotImplementedError

    def wait(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the end; the outputs. JobError if the job failed or was stopped, TimeoutError if it goes on."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.status == "running":
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{self.run} goes on after {timeout_s:g} s")
            time.sleep(POLL_S)
        return self.outputs

    @property
    def outputs(self) -> dict[str, Any]:
        """What the job has made, by name: dataset, run, checkpoint, model, url, …; JobError unless it succeeded."""
        status, lines = self.status, self.logs().splitlines()
        if status != "succeeded":
            errors = [line for line in lines if line.startswith("error: ")]
            raise JobError(self.run, status if status == "running" or not errors else
                           f"{status}: {errors[-1].removeprefix('error: ')}", "logs() has all that it printed")
        return json.loads(next(line for line in reversed(lines) if line.startswith(OUTPUTS)).removeprefix(OUTPUTS))

    @property
    def epochs(self) -> "pandas.DataFrame":
        """Of a train job: a row for each epoch that has ended."""
        return self._table("results.json", lambda found: found["epochs"])

    @property
    def trials(self) -> "pandas.DataFrame":
        """Of a tune job: a row for each trial, once some have ended."""
        return self._table("trials.json", lambda found: [
            {**{key: value for key, value in row.items() if key != "values"}, **row["values"]} for row in found])

    def _table(self, name: str, rows: Any) -> "pandas.DataFrame":
        import pandas

        try:
            found = storage.read_json(storage.join(self.directory, name)) if self.directory else None
        except NotFound:
            found = None
        return pandas.DataFrame() if found is None else pandas.DataFrame(rows(found))

    def __repr__(self) -> str:
        return f"<{self.job.kind} {self.run}: {self.status}>"


class LocalSubmission(Submission):
    """A job on this machine, in a process of its own."""

    def __init__(self, job: Any, run: str, resume: bool) -> None:
        super().__init__(job, run)
        self._log = tempfile.NamedTemporaryFile(prefix=f"{run}-", suffix=".log")
        with tempfile.NamedTemporaryFile("w", prefix=f"{run}-", suffix=".json", delete=False) as file:
            file.write(job_file.to_json(job))
        self._file, self._stopped = file.name, False
        words = [sys.executable, "-m", "yolov7_ray.command_line", file.name, "--json", "--resume" if resume else "--name", run]
        packages = os.pathsep.join(str(Path(__file__).resolve().parents[up]) for up in (2, 3))
        path = os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(words, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                         env=os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"})

    @property
    def status(self) -> Status:
        code = self._process.poll()
        if code is None:
            return "running"
        if code == 0:  # else it may be resumed, as its log says
            Path(self._file).unlink(missing_ok=True)
        return "succeeded" if code == 0 else "stopped" if self._stopped or code == EXIT_INTERRUPTED else "failed"

    def logs(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def stop(self) -> Status:
        if self.status == "running":
            self._stopped = True
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        return self.status


class ClusterSubmission(Submission):
    """A job on a cluster, which goes on without this process."""

    def __init__(self, job: Any, run: str, resume: bool, address: str, insecure: bool) -> None:
        from ..cluster.jobs_api import Cluster

        super().__init__(job, run)
        self.cluster = Cluster(address, insecure)
        self.job_id = self.cluster.submit(kind_of(job).sent(job), run, resume=resume, json_outputs=True)

    @property
    def status(self) -> Status:
        return STATUS.get(self.cluster.info(self.job_id).status.value, "running")

    def logs(self) -> str:
        return self.cluster.logs(self.job_id)

    def stop(self) -> Status:
        self.cluster.stop(self.job_id)
        return self.status
