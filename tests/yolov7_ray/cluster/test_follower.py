"""A job's log through outages: no line lost or doubled, the exit status is the job's; a fake Jobs API behind a proxy."""

import asyncio
import contextlib
import http.client
import os
import socket
import ssl
import threading
import time

import pytest
import requests
import urllib3
from aiohttp import web
from conftest import free_ports
from yolov7_ray.cluster import follower, jobs_api
from yolov7_ray.cluster.follower import Follower
from yolov7_ray.cluster.jobs_api import Cluster
from yolov7_ray.errors import JobError

DEADLINE_S = 120


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


class JobsAPI:
    """One job of a Jobs API, whose log the test writes, behind a TCP proxy that can be cut."""

    def __init__(self):
        self.port, self.inner_port = free_ports(2)
        self.message = None
        self.log, self.exit_code, self.known, self.status, self.connections = "", None, True, 200, 0
        self.loop, self.writers, self.proxy = asyncio.new_event_loop(), set(), None
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self._do(self._serve())
        self.up()

    def _do(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def up(self) -> None:
        self._do(self._up())

    def down(self) -> None:
        """Every connection is cut, and new ones are refused."""
        self._do(self._down())

    def end(self) -> None:
        self.down()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)

    async def _serve(self) -> None:
        application = web.Application()
        application.router.add_get("/api/version", self._version)
        application.router.add_get("/api/jobs/r-1", self._info)
        application.router.add_get("/api/jobs/r-1/logs", self._logs)
        application.router.add_get("/api/jobs/r-1/logs/tail", self._tail)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.inner_port).start()

    async def _up(self) -> None:
        self.proxy = await asyncio.start_server(self._forward, "127.0.0.1", self.port)

    async def _down(self) -> None:
        self.proxy.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.inner_port)
        self.writers |= {writer, inner_writer}

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self.status != 200:
            return web.Response(status=self.status, text="bad gateway")
        return None if self.known else web.Response(status=404, text="Job r-1 does not exist")

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"})

    async def _info(self, request: web.Request) -> web.Response:
        status = {None: "RUNNING", 0: "SUCCEEDED"}.get(self.exit_code, "FAILED")
        return self._refusal(request) or web.json_response({
            "type": "SUBMISSION", "submission_id": "r-1", "status": status, "entrypoint": "x", "driver_exit_code":
            self.exit_code if self.exit_code != "lost" else None, "message": self.message, "metadata": {"run": "r", "kind": "train"}})

    async def _logs(self, request: web.Request) -> web.Response:
        return self._refusal(request) or web.json_response({"logs": self.log})

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal:
            return refusal
        self.connections += 1
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        position = 0
        with contextlib.suppress(ConnectionError):
            while position < len(self.log) or self.exit_code is None:
                chunk = self.log[position:position + 37]  # which ends in the middle of lines
                position += len(chunk)
                if chunk:
                    await socket_.send_str(chunk)
                else:
                    await asyncio.sleep(0.01)
        return socket_


@pytest.fixture
def api():
    server = JobsAPI()
    yield server
    server.end()


@pytest.fixture
def following(api, monkeypatch):
    """A follower in a thread."""
    monkeypatch.setattr(follower, "PAUSE_S", (0.01, 0.05))
    started = []

    def start(reconnect_s: float = 600):
        started.append(Following(api, reconnect_s))
        return started[-1]

    yield start
    api.known, api.exit_code = True, 0
    for one in started:
        one.thread.join(DEADLINE_S)


class Following:
    def __init__(self, api: JobsAPI, reconnect_s: float):
        self.pieces, self.outcome = [], None
        self.follower = Follower(Cluster(f"http://127.0.0.1:{api.port}"), "r-1", self.pieces.append, reconnect_s)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self.follower.follow()
        except JobError as error:
            self.outcome = error

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def sees(self, line: str) -> None:
        wait_until(lambda: line in self.text, f"{line!r} in {self.text[-200:]!r}")

    def result(self):
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        return self.outcome


def lines(first: int, last: int) -> str:
    return "".join(f"line {number} é\n" for number in range(first, last))


def test_lines_come_once_through_three_outages_and_the_exit_status_is_the_jobs(api, following, capfd):
    api.log = lines(0, 50)
    one = following()
    for outage in range(1, 4):
        one.sees(f"line {50 * outage - 1} é\n")
        api.down()
        wait_until(lambda: one.follower._outage_since is not None, "the outage is noticed")
        api.log += lines(50 * outage, 50 * outage + 50)
        api.up()
    one.sees("line 199 é\n")
    api.exit_code = 3
    assert one.result() == 3 and one.text == api.log == lines(0, 200)
    told = capfd.readouterr().err
    assert told.count("no longer answers (Connection refused); trying for 10 minutes, the job is not affected\n") >= 1
    assert told.count("answers again\n") == 3 and "Traceback" not in told


@pytest.mark.parametrize(("exit_code", "message", "told"), [
    (-9, "Job entrypoint command failed with exit code -9", "ended by signal 9"),
    ("lost", "\nThe actor died unexpectedly before finishing this task.\n\tclass_name: JobSupervisor\n",
     "The actor died unexpectedly before finishing this task."),
    ("lost", None, "no reason is known"),
])
def test_a_job_that_was_killed_ends_in_one_sentence_that_says_how_to_go_on(api, following, exit_code, message, told):
    api.log, api.message = lines(0, 9), message
    one = following()
    one.sees("line 8 é\n")
    if exit_code == "lost":
        api.log += "Job supervisor actor died: The actor died unexpectedly.\n\tclass_name: JobSupervisor\n" + lines(0, 9)
    api.exit_code = exit_code
    error = one.result()
    assert isinstance(error, JobError) and one.text == lines(0, 9)
    assert str(error) == (f"r-1: failed on the cluster ({told}); go on from what the run has saved: the same job file "
                          "with --resume r")


def test_an_outage_long_after_the_start_is_no_longer_than_any_other(api, following, monkeypatch):
    class Later:
        sleep, offset_s = staticmethod(time.sleep), 0.0

        @classmethod
        def monotonic(cls) -> float:
            return time.monotonic() + cls.offset_s

    monkeypatch.setattr(follower, "time", Later)
    api.log = lines(0, 5)
    one = following(reconnect_s=600)
    one.sees("line 4")
    Later.offset_s = 3600.0  # an hour in which the job said nothing
    api.down()
    wait_until(lambda: one.follower._outage_since is not None, "the outage is noticed")
    Later.offset_s += 590
    api.log += lines(5, 9)
    api.up()
    one.sees("line 8")
    api.exit_code = 0
    assert one.result() == 0 and one.text == lines(0, 9)


def test_a_longer_outage_ends_the_follower_and_says_how_to_go_on(api, following):
    api.log = lines(0, 3)
    one = following(reconnect_s=0.2)
    one.sees("line 2")
    api.down()
    error = str(one.result())
    assert error.startswith(f"http://127.0.0.1:{api.port}: no longer answers (Connection refused), for 0.0 minutes; if the "
                            f"cluster is up, the job goes on: python submit.py logs r-1 --follow --address http://127.0.0.1")
    assert "; if its head is lost, go on from what the run has saved: the same job file with --resume r\n" in error + "\n"


def test_a_job_that_ends_in_an_outage_loses_no_line(api, following):
    api.log = lines(0, 3)
    one = following()
    one.sees("line 2")
    api.down()
    wait_until(lambda: one.follower._outage_since is not None, "the outage is noticed")
    api.log, api.exit_code = lines(0, 400), 1
    api.up()
    assert one.result() == 1 and one.text == lines(0, 400)


def test_a_proxy_that_answers_for_a_dead_cluster_is_an_outage(api, following):
    api.log = lines(0, 3)
    one = following()
    one.sees("line 2")
    api.status = 502
    api.down()
    api.up()
    wait_until(lambda: one.follower._outage_since is not None, "the outage is noticed")
    api.log, api.exit_code, api.status = lines(0, 6), 0, 200
    assert one.result() == 0 and one.text == lines(0, 6)


def test_after_a_head_was_replaced_the_run_to_resume_is_named(api, following):
    api.log = lines(0, 3)
    one = following()
    one.sees("line 2")
    api.down()
    wait_until(lambda: one.follower._outage_since is not None, "the outage is noticed")
    api.known = False
    api.up()
    error = str(one.result())
    assert error == (f"http://127.0.0.1:{api.port}: no longer knows r-1: its head was replaced; go on from what the run has "
                     "saved: the same job file with --resume r")


def test_a_silent_connection_is_replaced(api, following, monkeypatch):
    monkeypatch.setattr(follower, "SILENCE_S", 0.1)
    api.log = lines(0, 3)
    one = following()
    wait_until(lambda: api.connections >= 3, "the log is requested again")
    api.log += lines(3, 6)
    one.sees("line 5")
    api.exit_code = 0
    assert one.result() == 0 and one.text == lines(0, 6)


def refused_error() -> requests.RequestException:
    [port] = free_ports(1)
    with pytest.raises(requests.ConnectionError) as error:
        requests.get(f"http://127.0.0.1:{port}", timeout=5)
    return error.value


@pytest.mark.parametrize(("error", "sentence"), [
    (refused_error, "Connection refused"),
    (lambda: requests.ConnectionError(urllib3.exceptions.ProtocolError(
        "Connection aborted.", http.client.RemoteDisconnected("Remote end closed connection without response"))),
     "the connection was closed before an answer"),
    (lambda: requests.ConnectionError(urllib3.exceptions.ProtocolError(
        "Connection aborted.", ConnectionResetError(104, "Connection reset by peer"))), "Connection reset by peer"),
    (lambda: requests.ConnectionError(socket.gaierror(-2, "Name or service not known")), "Name or service not known"),
    (lambda: requests.ReadTimeout("x"), "no answer within 5 s"),
    (lambda: OSError(os.strerror(113)), "No route to host"),
    (lambda: requests.exceptions.SSLError(ssl.SSLError(1, "wrong version number")), "wrong version number"),
    (lambda: requests.ConnectionError(), "ConnectionError"),
])
def test_errors_of_the_network_are_a_few_words(error, sentence):
    assert jobs_api._reason(error()) == sentence
