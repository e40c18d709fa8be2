"""The wheel, installed outside of the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from yolov7_ray import __version__

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Calls the installed program in a new directory."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place], cwd=ROOT, check=True,
                   timeout=300, capture_output=True)
    wheel, = place.glob("*.whl")
    assert wheel.name == f"yolov7_ray-{__version__}-py3-none-any.whl"
    subprocess.run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", place / "site", wheel],
                   check=True, timeout=300, capture_output=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}

    def call(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, place / "site/bin/yolov7-ray", *words], cwd=place, text=True, timeout=600,
                              env=environment | {"PYTHONPATH": str(place / "site")}, capture_output=True)

    return call


@pytest.mark.slow
def test_it_has_version_help_templates_and_completion(program):
    assert program("--version").stdout == f"yolov7-ray {__version__}\n"
    helped = program("--help").stdout
    assert "usage: yolov7-ray" in helped and "submit.py" not in helped
    assert "complete" in program("completion", "bash").stdout
    missing = program("jobs/none.yaml")
    assert missing.returncode == 2 and "no such job file" in missing.stderr
    written = program("new", "train", "--from", "quickstart")
    assert written.stdout == "wrote train.yaml; fill it in, then: yolov7-ray train.yaml --dry-run\n"


@pytest.mark.slow
def test_a_job_file_that_ships_runs_anywhere(program):
    planned = program("jobs/quickstart.yaml", "--dry-run")
    assert planned.returncode == 0 and "yolov7-tiny (width 0.25)" in planned.stdout
    made = program("new", "ingest", "--from", "quickstart")
    assert made.returncode == 0
    done = program("ingest.yaml", "--set", "source.splits={train: 6, val: 3}")
    assert done.returncode == 0, done.stderr
    assert "next: yolov7-ray new train my-train.yaml" in done.stdout
