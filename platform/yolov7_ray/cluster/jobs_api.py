"""Jobs on a Ray cluster, through its Jobs API: submit, read the log, list, stop.

Storage credentials are not sent: they come from the nodes' environment or instance roles. Everything in
``env_vars`` can be read by everyone with access to the cluster's dashboard.
"""

import http.client
import ipaddress
import json
import logging
import os
import re
import secrets
import shlex
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests

from ..errors import JobError
from ..program import PROGRAM, command

TIMEOUT_S = 5
"""Timeout for connecting, and for the first answer."""

REQUEST_TIMEOUT_S = 60
"""Timeout for any later answer."""

FORWARDED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
             "AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION", PROGRAM)
"""Environment variables that locate the storage, and the program's name; sent with the job if set."""

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Sent only with --forward-aws-credentials."""

Result = TypeVar("Result")

ENDPOINT = "yolov7"
"""Name of the Serve application of serve jobs: a second one on a cluster upgrades the first without downtime."""

CANDIDATE = f"{ENDPOINT}-candidate-"
"""Start of the names of Serve applications that hold candidates of an endpoint's models, during roll-outs."""

CONTROLLER = "roll-outs"
"""Name of the endpoint's deployment that looks after roll-outs."""

CALL = "call"
"""Kind of the jobs that `Cluster.call` submits; lists leave them out."""

CALL_TIMEOUT_S = 180

TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")


class Job(Protocol):
    """The part of a job that submission needs."""

    kind: str

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The whole job as plain values."""


class Unreachable(JobError):
    """Nothing answers at the address of a cluster."""


class ConnectionLost(JobError):
    """A cluster that was reached before no longer answers."""


class Refused(JobError):
    """The cluster answers with an error of its own."""


class NoSuchJob(JobError):
    """The cluster answers, and knows no job of that id."""


class Cluster:
    """A Ray cluster at the address of its dashboard, ``http://HEAD:8265``.

    JobError within about ten seconds if it cannot be reached, rejects the token, or accepts everyone although it is
    not on this machine (unless ``insecure``).
    """

    def __init__(self, address: str, insecure: bool = False):
        self.address = _url(address)
        token = self._authenticate(insecure)
        for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # Ray would prefer them to the given address
            os.environ.pop(variable, None)
        from ray.job_submission import JobSubmissionClient

        for module in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(module).setLevel(logging.WARNING)  # otherwise each upload is logged

        class Client(JobSubmissionClient):
            def _do_request(self, *args, **kwargs):  # Ray's own has no timeout
                return super()._do_request(*args, **({"timeout": REQUEST_TIMEOUT_S} | kwargs))

        self._client = Client(self.address, headers={"Authorization": f"Bearer {token}"} if token else None)

    def _authenticate(self, insecure: bool) -> str | None:
        """The token to send, or None if the cluster requires none."""
        status = self._status()
        if status == 200:
            if not insecure and not _is_loopback(self.address):
                raise JobError(self.address, "accepts jobs from anyone who can reach it",
                               "start the cluster with RAY_AUTH_MODE=token, or give --insecure where its network "
                               "is closed")
            return None
        if status not in (401, 403):
            raise JobError(self.address, f"answers {status}, so it is no Ray dashboard",
                           "give the address of the dashboard, usually http://HEAD:8265")
        token = _token()
        if token is None:
            raise JobError(self.address, "asks for a token", "set RAY_AUTH_TOKEN to the cluster's token")
        if self._status(token) != 200:
            raise JobError(self.address, "does not accept the token", "set RAY_AUTH_TOKEN to this cluster's token")
        return token

    def _status(self, token: str | None = None) -> int:
        """HTTP status of the Jobs API's version."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return requests.get(f"{self.address}/api/version", headers=headers, timeout=TIMEOUT_S,
                                allow_redirects=False).status_code
        except requests.RequestException as error:
            raise Unreachable(self.address, f"cannot be reached ({_reason(error)})",
                           "check that the cluster is up and its dashboard's port is open to this machine "
                           "(an ssh -L or kubectl port-forward tunnel is the safe way)") from None

    def submit(self, job: Job, run_name: str, *, resume: bool = False, admit: bool = True,
               verbose: bool = False, forward_credentials: bool = False, json_outputs: bool = False) -> str:
        """Send code and job to the cluster and start it there; return the id of the submission."""
        submission = f"{run_name}-{secrets.token_hex(2)}" if resume else run_name
        words = ["python", "-m", "yolov7_ray", "job.json", "--resume" if resume else "--run-name", run_name]
        words += [] if admit else ["--no-admission"]
        words += ["--verbose"] if verbose else []
        words += ["--json"] if json_outputs else []
        with tempfile.TemporaryDirectory(prefix="yolov7-job-") as directory:
            Path(directory, "job.json").write_text(json.dumps(job.model_dump(mode="json")))
            runtime_env = {"working_dir": directory, "py_modules": code(), "excludes": ["__pycache__"],
                           "env_vars": environment(forward_credentials)}
            return self._request(lambda: self._client.submit_job(
                entrypoint=shlex.join(words), submission_id=submission, runtime_env=runtime_env,
                metadata={"run": run_name, "kind": job.kind}))

    def call(self, module: str, *words: str) -> tuple[int, str]:
        """Run a module of ours on the cluster, which takes seconds; its exit status and what it printed."""
        command = shlex.join(["python", "-m", module, *words])
        with tempfile.TemporaryDirectory(prefix="yolov7-call-") as directory:
            runtime_env = {"working_dir": directory, "py_modules": code(), "excludes": ["__pycache__"],
                           "env_vars": environment()}
            call_id = self._request(lambda: self._client.submit_job(
                entrypoint=command, submission_id=f"call-{secrets.token_hex(4)}", runtime_env=runtime_env,
                metadata={"kind": CALL}))
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while (info := self.info(call_id)).status.value not in TERMINAL:
            if time.monotonic() > deadline:
                self.stop(call_id)
                raise JobError(self.address, f"has not answered within {CALL_TIMEOUT_S} s", "see whether it has room")
            time.sleep(0.3)
        return exit_status(info), self.logs(call_id)

    def tail(self, job_id: str) -> AsyncIterator[str]:
        """A job's log from its beginning, in chunks as it grows, on one connection."""
        return self._client.tail_job_logs(job_id)

    def logs(self, job_id: str) -> str:
        """A job's output so far."""
        return self._request(lambda: self._client.get_job_logs(job_id))

    def info(self, job_id: str):
        """Ray's details of a job."""
        return self._request(lambda: self._client.get_job_info(job_id))

    def jobs(self) -> str:
        """A table of the cluster's jobs, the newest first."""
        jobs = [job for job in self._request(self._client.list_jobs)
                if job.submission_id and (job.metadata or {}).get("kind") != CALL]
        jobs.sort(key=lambda job: job.start_time or 0, reverse=True)
        rows = [("ID", "KIND", "STATUS", "STARTED", "SECONDS")]
        for job in jobs:
            started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((job.start_time or 0) / 1000))
            seconds = ((job.end_time or time.time() * 1000) - (job.start_time or 0)) / 1000
            rows.append((job.submission_id, (job.metadata or {}).get("kind", "–"), job.status.value, started,
                         f"{seconds:.0f}"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)

    def stop(self, job_id: str) -> str:
        """Stop a job; return its status afterwards."""
        self._request(lambda: self._client.stop_job(job_id))
        deadline = time.monotonic() + 30
        while (status := self.info(job_id).status.value) not in TERMINAL and time.monotonic() < deadline:
            time.sleep(0.5)
        return status

    def stop_endpoint(self) -> str:
        """Shut Ray Serve down, which ends the endpoint that a serve job has left; say so.

        JobError if there is none, or if Ray Serve also runs applications that are not ours.
        """
        names = self._applications()
        if others := {name for name in names - {ENDPOINT} if not name.startswith(CANDIDATE)}:
            raise JobError(self.address, f"also serves {', '.join(sorted(others))}", "remove them first")
        if not names:
            raise JobError(self.address, "has no endpoint", "submit a serve job")
        if (answer := self._serve_api("DELETE")).status_code != 200:
            raise self._answered(f"status code {answer.status_code}: {answer.text}")
        return "endpoint: removed"

    def has_endpoint(self) -> bool:
        """Whether a serve job has left one, or keeps one up."""
        return ENDPOINT in self._applications()

    def _applications(self) -> set[str]:
        """Names of Ray Serve's applications."""
        return set(self._serve_api("GET").json().get("applications", {}))

    def _serve_api(self, method: str) -> requests.Response:
        return self._request(lambda: self._client._do_request(method, "/api/serve/applications/"))

    def _request(self, request: Callable[[], Result]) -> Result:
        """The cluster's answer; refusals and lost connections as JobError."""
        try:
            return request()
        except (requests.RequestException, ConnectionError) as error:
            raise ConnectionLost(self.address, f"no longer answers ({_reason(error)})",
                             "the job goes on if the cluster is up; see " + command("list")) from None
        except Exception as error:
            from ray.exceptions import AuthenticationError

            if isinstance(error, AuthenticationError):
                raise JobError(self.address, "does not accept the token any more",
                               "set RAY_AUTH_TOKEN to this cluster's token") from None
            if not isinstance(error, RuntimeError):
                raise
            raise self._answered(str(error)) from None

    def _answered(self, text: str) -> JobError:
        """Ray's client's text of an answer that is no success, as an error."""
        found = re.search(r"status code (\d+)", text)
        status = int(found[1]) if found else None
        if "does not exist" in text:
            return NoSuchJob(self.address, "has no such job", f"{command('list')} shows the ids")
        if status in (404, 502, 503, 504):
            return ConnectionLost(self.address, f"answers {status} in place of the Jobs API",
                                  "its head is starting, or a proxy before it has lost it; try again")
        return Refused(self.address, f"refused: {' '.join(text[:500].split())}")


def code() -> list[str]:
    """The packages sent with a job, so that the cluster needs only their dependencies."""
    import yolov7
    import yolov7_ray

    return [str(Path(package.__file__).resolve().parent) for package in (yolov7, yolov7_ray)]


def environment(forward_credentials: bool = False) -> dict[str, str]:
    """Environment variables of the job on the cluster."""
    names = FORWARDED + (CREDENTIALS if forward_credentials else ())
    forwarded = {name: os.environ[name] for name in names if name in os.environ}
    return {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "PYTHONUNBUFFERED": "1"} | forwarded


def exit_status(info) -> int:
    """Of a job that has ended."""
    if info.status == "SUCCEEDED":
        return 0
    return info.driver_exit_code or 1


def _url(address: str) -> str:
    url = address if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JobError(f"--address {address}", "is no address of a dashboard", "give e.g. http://HEAD:8265")
    return url.rstrip("/")


def _is_loopback(address: str) -> bool:
    """Whether the host name resolves only to loopback addresses."""
    host = urlsplit(address).hostname
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(ip.split("%")[0]).is_loopback for ip in found)


def _token() -> str | None:
    """The token of RAY_AUTH_TOKEN, or of the file that RAY_AUTH_TOKEN_PATH (or Ray's default) names."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    return path.read_text().strip() if path.is_file() else None


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_S} s"
    while (inner := getattr(error, "reason", None) or next(
            (part for part in (*error.args, error.__cause__) if isinstance(part, BaseException)), None)) is not None \
            and isinstance(inner, BaseException):
        error = inner
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead | EOFError):
        return "the connection was closed before an answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:120] or type(error).__name__
