"""Jobs on a real Ray cluster of two nodes, with token authentication; and unusable clusters."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from conftest import free_ports
from nodes import ROOT, cluster
from yolov7_ray import storage
from yolov7_ray.cluster import jobs_api
from yolov7_ray.cluster.jobs_api import Cluster
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.errors import JobError


@pytest.fixture(scope="module")
def running():
    """A head with two CPUs and a second node with one."""
    with cluster(2, 1) as running:
        yield running


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

    [shard] = (tmp_path / "shapes" / "train").glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:-8])
    done = running.submit("doctor", str(tmp_path / "shapes"), "--output", str(tmp_path / "doctor"))
    assert done.returncode == 1, "the doctor's verdict comes back from the cluster"
    assert "1  truncated shard: train: train/" in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "doctor" / "index.html").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_mistake_ends_the_job_with_its_message_and_status(running, shapes_dataset, tmp_path):
    path = tmp_path / "train-large.yaml"
    path.write_text(f"kind: train\ndataset: {shapes_dataset}\nstorage: {tmp_path}/runs\nresources: {{workers: 4}}\n")
    done = running.submit(str(path))
    assert done.returncode == 2
    message = "asks for 4 CPU and 0 GPU (4 workers with 1 CPU and 0 GPU each), but there are 3 CPU and 0 GPU"
    assert message in done.stdout
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
        rest = follower.communicate(timeout=300)[0]
        assert follower.returncode == 130
        assert f"{job_id} goes on; python submit.py logs {job_id} --follow" in rest
        assert "Traceback" not in rest
    finally:
        follower.kill()
    lines = running.submit("list").stdout.splitlines()
    assert [line.split()[2] for line in lines if line.startswith(job_id)] == ["RUNNING"]
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
    with pytest.raises(JobError, match="has no such job; python submit.py list shows the ids"):
        Cluster(running.address).info("none")


# --- without a cluster --------------------------------------------------------------------------------


def test_unreachable_cluster_is_reported_soon():
    [port] = free_ports(1)
    started = time.monotonic()
    with pytest.raises(JobError, match=r"cannot be reached \(Connection refused\); check that the cluster is up"):
        Cluster(f"http://127.0.0.1:{port}")
    assert time.monotonic() - started < 60


def test_silent_cluster_is_reported_soon(monkeypatch):
    monkeypatch.setattr(jobs_api, "TIMEOUT_S", 1)
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
    monkeypatch.setattr(jobs_api, "_is_loopback", lambda address: False)
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
    assert jobs_api._is_loopback(f"http://{host}:8265") is loopback


def test_credentials_are_not_sent_unless_requested(monkeypatch):
    for name in (*jobs_api.FORWARDED, *jobs_api.CREDENTIALS, "AWS_PROFILE"):
        monkeypatch.setenv(name, f"value of {name}")
    sent = jobs_api.environment()
    assert set(jobs_api.FORWARDED) <= set(sent)
    assert not {*jobs_api.CREDENTIALS, "AWS_PROFILE", "RAY_AUTH_TOKEN"} & set(sent)
    assert set(jobs_api.CREDENTIALS) <= set(jobs_api.environment(forward_credentials=True))
    monkeypatch.delenv("AWS_REGION")
    assert "AWS_REGION" not in jobs_api.environment()


def test_both_packages_are_sent():
    assert [Path(path).name for path in jobs_api.code()] == ["yolov7", "yolov7_ray"]


STOP_ENDPOINT = """
import os, sys
os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
import ray
from ray import serve
from yolov7_ray.cluster.jobs_api import Cluster
from yolov7_ray.errors import JobError

dashboard_port, port, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
ray.init(num_cpus=2, dashboard_host="127.0.0.1", dashboard_port=dashboard_port, include_dashboard=True,
         log_to_driver=False, object_store_memory=100 << 20, _temp_dir=directory)
cluster = Cluster(f"http://127.0.0.1:{dashboard_port}")

def stop():
    try:
        print(cluster.stop_endpoint(), flush=True)
    except JobError as error:
        print(error.problem, flush=True)

@serve.deployment
class Page:
    def __call__(self, request):
        return "page"

stop()
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(Page.bind(), name="other", route_prefix="/other")
stop()
serve.delete("other")
serve.run(Page.bind(), name="yolov7")
stop()
stop()
ray.shutdown()
"""


@pytest.mark.ray
@pytest.mark.slow
def test_endpoint_is_removed_unless_others_are_served_beside_it():
    dashboard_port, port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="r-", ignore_cleanup_errors=True) as directory:  # socket paths are short
        done = subprocess.run([sys.executable, "-c", STOP_ENDPOINT, str(dashboard_port), str(port), directory],
                              capture_output=True, text=True, timeout=600,
                              env=os.environ | {"PYTHONPATH": str(ROOT / "platform")})
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "(raylet)" not in line]
    assert said == ["has no endpoint", "also serves other", "endpoint: removed", "has no endpoint"]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=60)
