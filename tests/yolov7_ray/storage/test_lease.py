"""A directory belongs to one process at a time; a dead owner loses it, an owner that lives keeps it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.jobs import execution
from yolov7_ray.jobs.kinds import kind_named
from yolov7_ray.jobs.job_file import load_job
from yolov7_ray.storage import lease
from yolov7_ray.storage.process import Process

HELD = "from yolov7_ray.storage import lease; import sys, time\n" \
       "with lease.held(sys.argv[1], 'run r', 'wait'): print('held', flush=True); time.sleep(600)\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Leases that run out soon."""
    monkeypatch.setattr(lease, "LEASE_S", 3.0)
    monkeypatch.setattr(lease, "RENEW_S", 0.3)
    monkeypatch.setattr(lease, "POLL_S", 0.1)


def owner(directory: str, **changes) -> dict:
    """Write the lease of somebody else."""
    content = {"owner": "somebody", "host": "elsewhere", "pid": 7, "boot": "another", "namespace": "pid:[1]",
               "started": "1",
               "since": "2020-01-01 00:00:00 UTC", "renewals": 1} | changes
    storage.write_bytes(storage.join(directory, lease.FILE), json.dumps(content).encode())
    return content


def held(directory: str, said: list | None = None):
    return lease.held(directory, "run r", "wait until it ends", (said if said is not None else []).append)


@pytest.fixture
def process(place):
    """Another process of this machine that holds the lease."""
    other = subprocess.Popen([sys.executable, "-c", HELD, place], stdout=subprocess.PIPE, text=True,
                             env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert other.stdout.readline() == "held\n"
    yield other
    other.kill()
    other.wait(60)


def test_the_second_is_refused_at_once_and_told_by_whom(place, process):
    with pytest.raises(JobError, match=rf"^run r: belongs to process {process.pid} on {re.escape(socket.gethostname())} "
                                       r"\(since 20..-..-.. ..:..:.. UTC\), which is at work there; wait until it ends$"):
        with held(place):
            pytest.fail("two owners")


def test_a_dead_owner_of_this_machine_is_known_at_once(place, process, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_S", 1e9)
    process.kill()
    process.wait(60)
    said = []
    with held(place, said):
        assert said == [said[0]] and f"process {process.pid} on" in said[0] and "is dead: run r is taken over" in said[0]


def test_a_dead_owner_that_nobody_waited_for_is_dead(place, process, monkeypatch):
    """As in a container whose first process does not reap: it is in the table of processes for ever."""
    monkeypatch.setattr(lease, "LEASE_S", 1e9)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with held(place):
        assert Path(f"/proc/{process.pid}").exists()


def test_an_owner_whose_state_is_hidden_is_alive(place, process, monkeypatch):
    monkeypatch.setattr("yolov7_ray.storage.process._state_and_start", lambda pid: ("", ""))
    with pytest.raises(JobError, match="belongs to process"), held(place):
        pytest.fail("two owners")


def test_another_process_with_the_number_of_the_owner_is_not_the_owner(place, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_S", 1e9)
    owner(place, **asdict(replace(Process.own(), started="1")))
    with held(place):
        pass


@pytest.mark.parametrize("since", ["2020-01-01 00:00:00 UTC", "2099-01-01 00:00:00 UTC"])
def test_an_owner_elsewhere_is_waited_for_as_long_as_its_lease_whatever_its_clock_says(place, since):
    owner(place, since=since)
    said, started = [], time.monotonic()
    with held(place, said):
        assert time.monotonic() - started >= lease.LEASE_S
    assert said == [f"waiting up to 3 s for run r: process 7 on elsewhere (since {since}) may still be at work there"]


def test_an_owner_elsewhere_that_renews_is_alive(place):
    content, renewed = owner(place), threading.Event()

    def renew(_: str) -> None:  # at the moment when the other one begins to wait
        owner(place, renewals=content["renewals"] + 1)
        renewed.set()

    with pytest.raises(JobError, match="belongs to process 7 on elsewhere"):
        with lease.held(place, "run r", "wait", renew):
            pytest.fail("two owners")
    assert renewed.is_set()


def test_of_many_that_start_at_once_one_wins(place):
    won, lost, go, done = [], [], threading.Barrier(8), threading.Event()

    def start() -> None:
        go.wait(60)
        try:
            with held(place):
                won.append(1)
                done.wait(60)
        except JobError as error:
            lost.append(str(error))
            if len(lost) == 7:
                done.set()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert (len(won), len(lost)) == (1, 7) and all("which is at work there" in error for error in lost)


def test_it_is_renewed_and_then_given_back(place):
    uri, seen = storage.join(place, lease.FILE), set()
    with held(place):
        deadline = time.monotonic() + 60
        while len(seen) < 3 and time.monotonic() < deadline:
            seen.add(storage.read_with_etag(uri)[1])
    assert len(seen) >= 3
    with pytest.raises(JobError):
        storage.read_bytes(uri)
    assert not storage.exists(place), "what is left counts as nothing"
    with held(place):
        pass


def test_an_owner_that_lost_its_lease_is_interrupted(place):
    started = time.monotonic()
    with pytest.raises(JobError, match="run r: belongs to process 7 on elsewhere .* at work there"):
        with held(place):
            owner(place)
            threading.Event().wait(300)
    assert time.monotonic() - started < 200
    assert json.loads(storage.read_bytes(storage.join(place, lease.FILE)))["owner"] == "somebody"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_goes_where_it_went(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with held(str(tmp_path)):
            signal.raise_signal(signal.SIGINT)
    assert not (tmp_path / lease.FILE).exists()


@pytest.mark.parametrize("damage", [b"", b"[]", b"{"])
def test_a_lease_that_cannot_be_read_runs_out(tmp_path, damage):
    (tmp_path / lease.FILE).write_bytes(damage)
    said = []
    with held(str(tmp_path), said):
        assert "process ? on ?" in said[0]


# --- runs -----------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job of which only the claim is real."""
    from contextlib import nullcontext

    monkeypatch.setattr(execution.local_ray, "start_ray", lambda *arguments: nullcontext())
    monkeypatch.setattr(execution.paths, "check_inputs", lambda job: None)
    return load_job(f"kind: train\ndataset: d\nstorage: {tmp_path}/runs\n")


def test_two_runs_of_one_name(job, tmp_path, monkeypatch):
    refused = []

    def run(self, spec, run_name):
        for resume in (False, True):
            if resume:
                storage.write_bytes(f"{tmp_path}/runs/r/file", b"")
            with pytest.raises(JobError) as error:
                execution.execute(job, "r", resume=resume, admit=False)
            refused.append(str(error.value))
        return {"run": "r"}

    monkeypatch.setattr(type(kind_named("train")), "run", run)
    execution.execute(job, "r", admit=False)
    assert refused == 2 * [refused[0]]
    assert re.fullmatch(rf"run {tmp_path}/runs/r: belongs to process {os.getpid()} on .* \(since .*\), which is at work there; "
                        "wait until it ends, or stop it, then --resume r; or start a run of another name", refused[0])


def test_a_run_that_never_began_leaves_its_name_free(job, tmp_path, monkeypatch):
    def run(self, spec, run_name):
        raise JobError("x", "is refused")

    monkeypatch.setattr(type(kind_named("train")), "run", run)
    for _ in range(2):
        with pytest.raises(JobError, match="x: is refused"):
            execution.execute(job, "r", admit=False)
    assert not Path(tmp_path, "runs/r", lease.FILE).exists()
