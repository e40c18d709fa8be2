"""A new user's folder to an endpoint: one command, no edited file."""

import os
import subprocess
import sys

import pytest
from conftest import make_coco, make_voc, make_yolo
from training_jobs import ROOT

from yolov7_ray import storage
from yolov7_ray.registry.registry import Registry

TIMEOUT_S = 1800


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize("make", [make_yolo, make_voc, make_coco])
def test_a_folder_becomes_an_endpoint_that_answers(tmp_path, make):
    make(tmp_path / "mine")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    small = {"epochs": 2, "data.image_size_px": 96, "model.width": 0.25}
    words = [f"steps.train.{key}={value}" for key, value in small.items()]
    words += ["steps.ingest.source.uri=mine", "steps.serve.port=0", "steps.serve.wait=false",
              "steps.serve.probe={dataset: datasets/mine, output: answer}"]
    done = subprocess.run([sys.executable, ROOT / "submit.py", "jobs/folder-to-endpoint.yaml", "--name", "mine",
                           *(part for word in words for part in ("--set", word))], cwd=tmp_path, capture_output=True,
                          text=True, timeout=TIMEOUT_S, env=environment | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "recipe: " in done.stdout and ": small" in done.stdout
    assert Registry(str(tmp_path / "registry")).resolve("mine@latest").version == "1"
    assert storage.read_json(str(tmp_path / "answer/detections.json"))["model"] == "mine"
