"""Jobs on a real Ray cluster of two nodes, with token authentication; and clusters that are not what they should be."""

import http.server
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from conftest import free_ports

from yolov7_ray import client, storage
from yolov7_ray.client import Cluster
from yolov7_ray.data.schema import load_manifest
from yolov7_ray.errors import JobError

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 120


@dataclass
class Running:
    """The cluster under test."""

    address: str
    token: str
    environment: dict[str, str]

    def submit(self, *words: str, timeout_s: int = 240) -> subprocess.CompletedProcess:
        """Run submit.py against the cluster."""
        return subprocess.run([sys.executable, ROOT / "submit.py", *words, "--address", self.address], text=True,
                              env=self.environment, capture_output=True, timeout=timeout_s)


@pytest.fixture(scope="module")
def running():
    """`ray start --head` with two CPUs and a second node with one, ended by pid."""
    directory = tempfile.mkdtemp(prefix="ray-")
    gcs, dashboard, *others = free_ports(6)
    token = secrets.token_hex(32)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "OMP_NUM_THREADS": "1",
                    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    address, processes = f"http://127.0.0.1:{dashboard}", []

    def start(*words: str) -> None:
        log = open(Path(directory, f"node-{len(processes)}.log"), "wb")
        processes.append(subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
             "--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={100 << 20}", *words], env=environment, cwd=directory, stdout=log, stderr=log))

    try:
        start("--head", f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--num-cpus=2",
              f"--temp-dir={directory}/t", f"--dashboard-agent-listen-port={others[0]}",
              f"--dashboard-agent-grpc-port={others[1]}")
        wait_until(lambda: answers(address, token), "the head answers", processes, Path(directory, "node-0.log"))
        start(f"--address=127.0.0.1:{gcs}", "--num-cpus=1", f"--dashboard-agent-listen-port={others[2]}",
              f"--dashboard-agent-grpc-port={others[3]}")
        wait_until(lambda: num_nodes(address, token) == 2, "the second node is there", processes,
                   Path(directory, "node-1.log"))
        yield Running(address, token, environment)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(processes):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(directory, ignore_errors=True)


def wait_until(condition, what: str, processes=(), log=None) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {START_TIMEOUT_S} s: {what}"
        assert all(process.poll() is None for process in processes), f"a node ended before {what}: {log.read_text()}"
        time.sleep(0.5)


def ask(address: str, token: str, path: str) -> requests.Response | None:
    try:
        return requests.get(address + path, headers={"Authorization": f"Bearer {token}"}, timeout=5)
    except requests.RequestException:
        return None


def answers(address: str, token: str) -> bool:
    answer = ask(address, token, "/api/version")
    return answer is not None and answer.status_code == 200


def num_nodes(address: str, token: str) -> int:
    answer = ask(address, token, "/nodes?view=summary")
    return len(answer.json()["data"]["summary"]) if answer is not None and answer.ok else 0


def write_job(path: Path, num_images: int) -> Path:
    path.write_text(f"kind: ingest\ndataset: {path.parent}/shapes\n"
                    f"source: {{format: shapes, image_size_px: 64, splits: {{train: {num_images}, val: 4}}}}\n")
    return path


@pytest.mark.ray
@pytest.mark.slow
def test_job_runs_on_the_cluster_with_the_code_of_this_checkout(running, tmp_path):
    done = running.submit(str(write_job(tmp_path / "ingest-shapes.yaml", 8)))
    assert done.returncode == 0, done.stdout + done.stderr
    job_id = done.stdout.split()[1]
    assert job_id.startswith("ingest-shapes-20")
    assert f"{job_id}: starting (ingest)" in done.stdout, "the job's log is streamed"
    assert f"{job_id}: done in" in done.stdout
    assert load_manifest(str(tmp_path / "shapes")).split("train").num_rows == 8

    listed = running.submit("list").stdout
    assert any(line.split()[:3] == [job_id, "ingest", "SUCCEEDED"] for line in listed.splitlines())
    assert f"{job_id}: done in" in running.submit("logs", job_id).stdout
    assert running.submit("logs", job_id, "--follow").returncode == 0


@pytest.mark.ray
@pytest.mark.slow
def test_mistake_ends_the_job_with_its_message_and_status(running, tmp_path):
    path = tmp_path / "train-large.yaml"
    path.write_text(f"kind: train\ndataset: {tmp_path}/none\nstorage: {tmp_path}/runs\nresources: {{workers: 4}}\n")
    done = running.submit(str(path))
    assert done.returncode == 2
    assert "asks for 4 CPU and 0 GPU (4 workers with 1 CPU and 0 GPU each), but there are 3 CPU and 0 GPU" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_interrupted_follower_leaves_the_job_running_and_stop_ends_it(running, tmp_path):
    path = write_job(tmp_path / "long.yaml", 5_000_000)
    follower = subprocess.Popen([sys.executable, ROOT / "submit.py", path, "--address", running.address], text=True,
                                env=running.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)
    try:
        job_id = follower.stdout.readline().split()[1]
        while "starting (ingest)" not in follower.stdout.readline():
            assert follower.poll() is None
        follower.send_signal(signal.SIGINT)
        rest = follower.communicate(timeout=60)[0]
        assert follower.returncode == 130
        assert f"{job_id} goes on; python submit.py logs {job_id} --follow" in rest
        assert "Traceback" not in rest
    finally:
        follower.kill()
    assert [line.split()[2] for line in running.submit("list").stdout.splitlines() if line.startswith(job_id)] == ["RUNNING"]
    assert running.submit("stop", job_id).stdout == f"{job_id}: STOPPED\n"
    assert not storage.exists(str(tmp_path / "shapes" / "dataset.json")), "an interrupted ingest leaves no dataset"


@pytest.mark.ray
@pytest.mark.slow
def test_relative_paths_are_refused_before_anything_is_sent(running, tmp_path):
    path = tmp_path / "relative.yaml"
    path.write_text("kind: ingest\ndataset: datasets/x\n")
    done = running.submit(str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}: dataset: 'datasets/x' is relative" in done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_token_is_needed_and_must_fit(running, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(JobError, match="asks for a token; set RAY_AUTH_TOKEN"):
        Cluster(running.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(JobError, match="does not accept the token"):
        Cluster(running.address)
    monkeypatch.setenv("RAY_AUTH_TOKEN", running.token)
    with pytest.raises(JobError, match="has no such job; submit.py list shows the ids"):
        Cluster(running.address).info("none")


# --- without a cluster --------------------------------------------------------------------------------


def test_unreachable_cluster_is_said_soon():
    [port] = free_ports(1)
    started = time.monotonic()
    with pytest.raises(JobError, match=r"cannot be reached \(Connection refused\); check that the cluster is up"):
        Cluster(f"http://127.0.0.1:{port}")
    assert time.monotonic() - started < 10


def test_silent_cluster_is_said_soon(monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT_S", 1)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        with pytest.raises(JobError, match="cannot be reached .no answer within 1 s."):  # it listens, nobody serves
            Cluster(f"http://127.0.0.1:{server.server_port}")


@pytest.mark.parametrize("address", ["ray://head:10001", "ftp://head", "http://", ""])
def test_address_of_something_else(address):
    with pytest.raises(JobError, match="is no address of a dashboard; give e.g. http://HEAD:8265"):
        Cluster(address)


@pytest.fixture
def dashboard():
    """Something that answers every GET with the status in `.status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(self.server.status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"ray_version": "2.60.0"}')

        def log_message(self, *arguments):
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.status = 200
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_open_cluster_elsewhere_is_refused_unless_insecure(dashboard, monkeypatch):
    address = f"http://127.0.0.1:{dashboard.server_port}"
    Cluster(address)  # on this machine an open cluster is accepted
    monkeypatch.setattr(client, "_is_loopback", lambda address: False)
    with pytest.raises(JobError, match="accepts jobs from anyone who can reach it; .* or give --insecure"):
        Cluster(address)
    Cluster(address, insecure=True)


def test_something_that_is_no_dashboard(dashboard):
    dashboard.status = 404
    with pytest.raises(JobError, match="answers 404, so it is no Ray dashboard; give the address"):
        Cluster(f"http://127.0.0.1:{dashboard.server_port}")


@pytest.mark.parametrize(("host", "loopback"), [
    ("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("192.0.2.7", False), ("no-such-host.invalid", False)])
def test_loopback(host, loopback):
    assert client._is_loopback(f"http://{host}:8265") is loopback


def test_secrets_stay_here_unless_told_otherwise(monkeypatch):
    for name in (*client.FORWARDED, *client.CREDENTIALS, "AWS_PROFILE"):
        monkeypatch.setenv(name, f"value of {name}")
    sent = client.environment()
    assert set(client.FORWARDED) <= set(sent)
    assert not {*client.CREDENTIALS, "AWS_PROFILE", "RAY_AUTH_TOKEN"} & set(sent)
    assert set(client.CREDENTIALS) <= set(client.environment(forward_credentials=True))
    monkeypatch.delenv("AWS_REGION")
    assert "AWS_REGION" not in client.environment()


def test_code_that_travels_is_both_packages():
    assert [Path(path).name for path in client.code()] == ["yolov7", "yolov7_ray"]
