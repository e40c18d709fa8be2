"""submit.py endpoint, on the private Ray of a serve job and where there is none."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from serving import register_blind_model

from yolov7_ray.cluster.local_ray import LOOPBACK
from yolov7_ray.cluster.session_directory import Reached, announce, create, disown, reachable

ROOT = Path(__file__).parents[3]


def submit(*words: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
    return subprocess.run([sys.executable, ROOT / "submit.py", *words], env=inherited | environment, text=True,
                          capture_output=True, timeout=300)


def test_who_runs_here_is_told_by_its_directory(tmp_path):
    reached = Reached("127.0.0.1:1", "http://127.0.0.1:2", "secret")
    running, ended = create(str(tmp_path)), create(str(tmp_path))
    announce(running, reached)
    announce(ended, reached)
    disown(ended)
    create(str(tmp_path))  # one that is starting
    assert reachable(str(tmp_path)) == [reached]
    assert Path(running, "reached").stat().st_mode & 0o777 == 0o600
    assert LOOPBACK["RAY_AUTH_MODE"] == "token"


def test_mistakes_are_one_sentence(tmp_path):
    wrong = submit("endpoint", "roll-out", "shapes@new", "--steps", "50,5", RAY_TMPDIR=str(tmp_path))
    assert wrong.returncode == 2 and wrong.stderr == "error: --steps 50,5: do not rise; give e.g. --steps 5,25,100\n"
    gone = submit("endpoint", "status", "--address", "http://127.0.0.1:9")
    assert gone.returncode == 2 and gone.stderr.startswith("error: http://127.0.0.1:9: cannot be reached (")


@pytest.mark.ray
@pytest.mark.slow
def test_the_endpoint_of_this_machine(tmp_path):
    """A serve job that waits, looked after from another terminal; it ends when its endpoint is removed."""
    registry = str(tmp_path / "registry")
    register_blind_model(registry, tmp_path)
    place = tempfile.mkdtemp(prefix="r-", dir="/tmp")  # socket paths are short
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump({"kind": "serve", "registry": registry, "models": {"m": {"model": "shapes:1"}}, "port": 0,
                                   "cpus_per_replica": 0.5}))
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, ROOT / "submit.py", job], stdout=log, stderr=log,
                                   env=inherited | {"RAY_TMPDIR": place, "PYTHONUNBUFFERED": "1"})
    try:
        deadline = time.monotonic() + 300
        while "try it" not in (tmp_path / "log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.5)
        table = submit("endpoint", "list", RAY_TMPDIR=place)
        assert table.returncode == 0, table.stdout + table.stderr
        assert [line.split() for line in table.stdout.splitlines()] == [
            ["endpoint", "RUNNING"], ["MODEL", "VERSION", "STATUS", "REPLICAS", "ROLL-OUT"],
            ["m", "shapes:1", "HEALTHY", "1", "–"]]
        refused = submit("endpoint", "roll-out", "shapes:1", RAY_TMPDIR=place)
        assert refused.returncode == 2 and refused.stdout == "error: m: serves shapes:1 already; give another version\n"
        removed = submit("endpoint", "stop", RAY_TMPDIR=place)
        assert removed.stdout == "endpoint: removed\n", removed.stderr
        assert process.wait(200) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait(60)
        shutil.rmtree(place, ignore_errors=True)
