"""The door: its words, its exit statuses, and what it prints to whom."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import submit
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.jobs.job_file import load_job
from yolov7_ray.jobs.kinds import KINDS

ROOT = Path(__file__).resolve().parents[1]


def door(*words: str, cwd: Path = ROOT, timeout_s: int = 900, **environment: str) -> subprocess.CompletedProcess:
    """Run submit.py as a user does, with nothing installed and nothing in PYTHONPATH."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHONPATH"))}
    inherited["OMP_NUM_THREADS"] = "1"
    return subprocess.run([sys.executable, ROOT / "submit.py", *map(str, words)], cwd=cwd, text=True, timeout=timeout_s,
                          env=inherited | environment, capture_output=True)


@pytest.fixture
def job(tmp_path) -> Path:
    path = tmp_path / "ingest-shapes.yaml"
    path.write_text("kind: ingest\ndataset: made/shapes\n"
                    "source: {format: shapes, image_size_px: 64, splits: {train: 6, val: 3}}\n")
    return path


# --- words ------------------------------------------------------------------------------------------


def test_run_is_implied():
    assert submit.parse(["x.yaml", "--set", "a=1", "--set", "b=2"]).overrides == ["a=1", "b=2"]
    assert submit.parse(["--address", "http://h:1", "x.yaml"]).job == "x.yaml"
    assert submit.parse(["run", "list"]).job == "list"
    assert submit.parse(["list", "--address", "http://h:1"]).command == "list"
    assert submit.parse(["logs", "some-id", "-f"]).follow


@pytest.mark.parametrize("words", [[], ["x.yaml", "--name", "a", "--resume", "b"], ["stop"], ["x.yaml", "--colour"]])
def test_words_that_make_no_sense(words, capsys):
    with pytest.raises(SystemExit) as end:
        submit.parse(words)
    assert end.value.code == 2
    assert "usage: submit.py" in capsys.readouterr().err


def test_help_is_quick_because_it_imports_nothing():
    program = "import sys, submit\ntry: submit.main(['--help'])\nexcept SystemExit: print({'ray', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "submit.py list | logs ID | stop ID" in done.stdout
    assert done.stdout.endswith("set()\n")


# --- without a Ray ----------------------------------------------------------------------------------


def test_mistake_is_one_message_without_traceback(tmp_path):
    path = tmp_path / "train-x.yaml"
    path.write_text("kind: train\ndataset: d\nmodel: {architecture: yolov7z}\n")
    done = door(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {path}: model.architecture: 'yolov7z' is unknown; choose yolov7-tiny, ")
    assert "Traceback" not in done.stderr


def test_our_own_fault_shows_its_traceback(monkeypatch, job):
    def fault(*arguments, **keywords):
        raise ZeroDivisionError

    monkeypatch.setattr("yolov7_ray.jobs.execution.execute", fault)
    with pytest.raises(ZeroDivisionError):
        submit.main([str(job)])


def test_schema(capsys):
    assert submit.main(["schema"]) == 0
    assert set(json.loads(capsys.readouterr().out)["discriminator"]["mapping"]) == set(KINDS)


def test_new_writes_a_file_that_is_valid_and_never_over_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert submit.main(["new", "train"]) == 0
    assert load_job(tmp_path / "train.yaml").kind == "train"
    assert submit.main(["new", "train"]) == 2
    assert "train.yaml: exists already; give another name" in capsys.readouterr().err
    assert submit.main(["new", "serve", "-"]) == 0
    assert capsys.readouterr().out.startswith("# Registered models -> an HTTP endpoint")


def test_dry_run_starts_nothing(job):
    done = door(job, "--dry-run", "--set", "source.splits.train=9", cwd=job.parent)
    assert done.returncode == 0, done.stderr
    assert "train 9 images, val 3 images generated, 64 px" in done.stdout
    assert f"dataset   {job.parent}/made/shapes will be written" in done.stdout
    assert not (job.parent / "made").exists()


@pytest.mark.parametrize("words", [[ROOT / "jobs/train-yolov7-tiny-bccd.yaml", "--dry-run"],
                                   [ROOT / "jobs/train-yolov7-tiny-bccd.yaml"], ["doctor", "datasets/bccd"]])
def test_a_missing_dataset_is_said_before_ray_starts(tmp_path, words):
    done = door(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {tmp_path}/datasets/bccd: there is no dataset here; run an ingest job" in done.stderr


def test_unreachable_cluster(job):
    started = time.monotonic()
    done = door(job, "--address", "http://127.0.0.1:9", "--set", f"dataset={job.parent}/d")
    assert done.returncode == 2 and "cannot be reached" in done.stderr and "Traceback" not in done.stderr
    assert time.monotonic() - started < 60


def test_storage_without_credentials_is_said_before_ray_starts(job):
    nowhere = {key: "" for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE")}
    done = door(job, "--set", "dataset=s3://bucket/d", AWS_EC2_METADATA_DISABLED="true", AWS_SHARED_CREDENTIALS_FILE="none",
                AWS_CONFIG_FILE="none", **nowhere)
    assert (done.returncode, done.stdout) == (2, "")
    assert "S3 credentials are missing" in done.stderr and "Traceback" not in done.stderr


# --- with a Ray of its own --------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.slow
def test_job_runs_here(job):
    with tempfile.TemporaryDirectory(prefix="ray-") as directory:
        done = door(job, "--name", "first", cwd=job.parent, RAY_TMPDIR=directory)
        assert os.listdir(directory) == [], "Ray's own directory is gone"
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("first: starting (ingest)\n")
    assert "first: done in" in done.stdout and f"dataset     {job.parent}/made/shapes" in done.stdout
    assert load_manifest(str(job.parent / "made/shapes")).split("val").num_rows == 3


@pytest.mark.ray
@pytest.mark.slow
def test_more_gpus_than_this_machine_has(job, tmp_path):
    path = tmp_path / "train-x.yaml"
    path.write_text("kind: pipeline\nsteps:\n  data: {kind: ingest, dataset: d, source: {format: shapes}}\n"
                    "  model: {kind: train, dataset: d, resources: {gpus_per_worker: 64}}\n")
    done = door(path, cwd=tmp_path)
    assert done.returncode == 2 and "asks for 1 CPU and 64 GPU" in done.stderr and "but there are" in done.stderr
    assert "Traceback" not in done.stderr


OPEN_PORTS = """
import json
from yolov7_ray.cluster import local_ray

with local_ray.start_ray():
    import ray, psutil  # Ray brings it
    ray.get(ray.remote(lambda: None).remote(), timeout=300)
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    ports = [port for process in processes for port in process.net_connections() if port.status == "LISTEN"]
    print(json.dumps(sorted({port.laddr.ip for port in ports})))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_own_ray_listens_on_this_machine_alone():
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", OPEN_PORTS], cwd=ROOT, text=True, capture_output=True, timeout=300,
                          env=environment | {"PYTHONPATH": f"platform{os.pathsep}."})
    assert done.returncode == 0, done.stderr
    addresses = json.loads(done.stdout.splitlines()[-1])
    assert addresses and all(address.endswith(("127.0.0.1", "::1")) for address in addresses), addresses


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_ends_the_job_and_says_how_to_go_on(job):
    process = subprocess.Popen(
        [sys.executable, ROOT / "submit.py", job, "--name", "second", "--set", "source.splits.train=5000000"],
        cwd=job.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while "second: starting" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted; run it again: a job of kind ingest keeps no state" in rest
    assert not (job.parent / "made/shapes/dataset.json").exists()
