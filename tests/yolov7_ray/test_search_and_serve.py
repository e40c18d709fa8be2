"""From generated images to an endpoint with the models of a search's front: the committed job file, in one command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_jobs import ROOT

from yolov7_ray import storage
from yolov7_ray.registry.front import load_front
from yolov7_ray.registry.model_source import load_model
from yolov7_ray.registry.registry import Registry

TIMEOUT_S = 3600


@pytest.mark.ray
@pytest.mark.long
def test_a_search_ends_at_an_endpoint_that_answers(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, ROOT / "submit.py", ROOT / "jobs/search-and-serve.yaml", "--name", "sas"],
                          cwd=tmp_path, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
                          timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    check(tmp_path, done.stdout)


def check(directory: Path, printed: str) -> None:
    """What the job has left in its working directory, and said."""
    run, registry = directory / "runs/sas-search", Registry(str(directory / "registry"))
    rows = storage.read_json(str(run / "trials.json"))
    finalists = [row for row in rows if row["status"] == "finalist"]
    assert len(finalists) == 2 and {row["epoch"] for row in finalists} == {20}
    assert {row["status"] for row in rows} <= {"finalist", "trained", "stopped"}
    front = load_front(str(run / "front"))
    assert {member.trial for member in front} <= {row["trial"] for row in finalists}
    assert "[4/4] serve (serve): url http://127.0.0.1:" in printed and "sas: done in" in printed
    published = storage.read_json(str(directory / "runs/sas/pipeline.json"))["finished"]["publish"]["models"]
    assert published and published.keys() <= {member.name for member in front}
    for name, served in published.items():
        version = registry.resolve(served["model"])
        assert version.name == f"shapes-{name}" and version.metrics["overall"]["ap"] >= 0.1, "the gate"
        assert load_model(served["model"], registry.uri).image_size_px in (64, 96)
    answer = storage.read_json(str(directory / "runs/search-and-serve-answer/detections.json"))
    assert answer["detections"], "the endpoint sees something in a held-out image"
    assert "<svg" in (run / "report/index.html").read_text()
