"""A private Ray: starts at other ports if one is taken; what killed owners left is removed, nothing else."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import ray
from yolov7_ray.cluster import local_ray, session_directory
from yolov7_ray.errors import JobError
from yolov7_ray.storage.process import Process

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("fault", ["Failed to bind to 127.0.0.1:1 because it's already occupied.",
                                   "The current node timed out during startup."])
def test_each_attempt_takes_another_port(monkeypatch, fault):
    ports = []

    def init(**arguments) -> None:
        ports.append(arguments["dashboard_port"])
        assert os.environ["RAY_API_SERVER_ADDRESS"].endswith(f":{ports[-1]}"), "announced"
        if len(ports) < local_ray.START_ATTEMPTS:
            raise ValueError(fault)

    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    local_ray.init_with_retries()
    assert len(set(ports)) == len(ports) == local_ray.START_ATTEMPTS


def test_other_faults_are_not_retried(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.setattr(ray, "init", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        local_ray.init_with_retries()


@pytest.mark.ray
@pytest.mark.slow
def test_ray_starts_although_its_first_port_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        program = f"""
import os, sys
sys.path[:0] = [{str(ROOT / 'platform')!r}, {str(ROOT)!r}]
from yolov7_ray.cluster import local_ray
free, ports = local_ray.announce_dashboard, [{taken.getsockname()[1]}]
def announce():
    port = ports.pop() if ports else free()
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{{port}}"
    return port
local_ray.announce_dashboard = announce
with local_ray.start_ray():
    import ray
    print("nodes", len(ray.nodes()), not ports)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "nodes 1 True" in done.stdout, done.stdout + done.stderr


def owned_by_another(parent: Path, *, alive: bool) -> tuple[Path, subprocess.Popen]:
    program = (f"import sys; sys.path.insert(0, {str(ROOT / 'platform')!r})\n"
               "from yolov7_ray.cluster import session_directory\n"
               f"print(session_directory.create({str(parent)!r}), flush=True); sys.stdin.read()")
    process = subprocess.Popen([sys.executable, "-c", program], text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    directory = Path(process.stdout.readline().strip())
    if not alive:
        process.kill()
        process.wait(60)
    return directory, process


def test_only_what_a_dead_owner_left_is_removed(tmp_path):
    living, process = owned_by_another(tmp_path, alive=True)
    owned_by_another(tmp_path, alive=False)
    kept, _ = owned_by_another(tmp_path, alive=False)
    session_directory.disown(str(kept))
    elsewhere, _ = owned_by_another(tmp_path, alive=False)
    owner = elsewhere / session_directory.OWNER
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"namespace": "pid:[1]"}))
    reused, _ = owned_by_another(tmp_path, alive=False)
    (reused / session_directory.OWNER).write_text(json.dumps(asdict(Process.own()) | {"started": "1"}))
    rebooted, _ = owned_by_another(tmp_path, alive=False)
    (rebooted / session_directory.OWNER).write_text(json.dumps(asdict(Process.own()) | {"boot": "earlier"}))
    unknown = tmp_path / "yolov7-ray-of-an-earlier-version"
    unknown.mkdir()
    try:
        mine = session_directory.create(str(tmp_path))
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {path.name for path in (living, kept, elsewhere, unknown, Path(mine))}
    finally:
        process.stdin.close()
        process.wait(60)


def test_a_directory_is_kept_while_a_process_still_uses_it(tmp_path):
    abandoned, _ = owned_by_another(tmp_path, alive=False)
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program, f"--session-dir={abandoned}"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as raylet:
        raylet.stdout.readline()  # before that, its command line is still this process's
        session_directory.sweep(str(tmp_path))
        assert abandoned.exists()
        raylet.stdin.close()
        raylet.wait(60)
    session_directory.sweep(str(tmp_path))
    assert not abandoned.exists()


def test_directories_of_other_users_are_left(tmp_path, monkeypatch):
    abandoned, _ = owned_by_another(tmp_path, alive=False)
    monkeypatch.setattr(os, "getuid", lambda: abandoned.stat().st_uid + 1)
    session_directory.sweep(str(tmp_path))
    assert abandoned.exists()
    shutil.rmtree(abandoned)


def test_where_no_cluster_runs_one_sentence_says_so(monkeypatch):
    def refuse(**arguments) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(JobError, match="Ray at auto: no cluster runs here; python submit.py JOB.yaml starts a Ray of its own"):
        local_ray.join("auto")
