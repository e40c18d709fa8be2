"""Files that version 0.1 wrote still load: a dataset, a run with its checkpoint, a registered version.

Weights and momenta are rounded to multiples of 1/64, so that they compress; the expected outputs are version 0.1's.
"""

import tarfile
from pathlib import Path

import pytest
import torch
from training_jobs import train

from yolov7_ray import storage
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.registry.model_source import load_model
from yolov7_ray.train.spec import TrainSpec

from yolov7.__main__ import main

ARCHIVE = Path(__file__).parents[1] / "goldens/version-0.1-run-and-registry.tar.xz"
CLASSES = ["circle", "square", "triangle", "star"]


@pytest.fixture
def earlier(tmp_path, monkeypatch) -> Path:
    """The files of version 0.1, in the working directory."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("ref", "registry", "last"), [
    ("old@latest", "registry", [48.0523, 48.0624, 376.683, 321.202, 0.017478, 0.16361, 0.16156, 0.16687, 0.16307]),
    ("registry/old/1/model.safetensors", None,
     [48.0523, 48.0624, 376.683, 321.202, 0.017478, 0.16361, 0.16156, 0.16687, 0.16307]),
    ("runs/old-train/checkpoint-epoch-0002/ema.safetensors", None,
     [47.9972, 47.9315, 373.911, 321.431, 0.017353, 0.16356, 0.16300, 0.16543, 0.16305]),
    ("runs/old-train", None, [47.9972, 47.9315, 373.911, 321.431, 0.017353, 0.16356, 0.16300, 0.16543, 0.16305]),
])
def test_a_registered_version_and_a_checkpoint(earlier, ref, registry, last):
    loaded = load_model(ref, registry)
    with torch.inference_mode():
        outputs = loaded.model(torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64))
    assert (loaded.classes, loaded.image_size_px, outputs.shape) == (CLASSES, 64, (1, 252, 9))
    torch.testing.assert_close(outputs[0, -1], torch.tensor(last), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("file", ["registry/old/1/model.safetensors",
                                  "runs/old-train/checkpoint-epoch-0002/ema.safetensors"])
def test_a_file_is_exported_at_the_size_it_was_trained_at(earlier, file, monkeypatch):
    sizes = []
    monkeypatch.setattr("yolov7.checkpoints.export.export_onnx",
                        lambda model, path, size_px, classes, **options: sizes.append(size_px))
    main(["export", file, "-o", "model.onnx"])
    assert sizes == [64]


def test_a_dataset(earlier):
    manifest = load_manifest("datasets/shapes")
    assert manifest.fingerprint == "9ef13cc2172ad1ca5d709f3949061f9bae6f1270c36f64ff72a52c4ce84b81ea"
    assert {name: split.num_rows for name, split in manifest.splits.items()} == {"train": 8, "val": 4}


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_goes_on(ray_session, earlier):
    job = storage.read_json("runs/old-train/spec.json") | {
        "epochs": 3, "storage": str(earlier / "runs"), "dataset": str(earlier / "datasets/shapes")}
    TrainSpec.model_validate(job)
    run = Path(train(job, "old-train")["run"])
    rows = storage.read_json(str(run / "results.json"))["epochs"]
    assert [row["epoch"] for row in rows] == [1, 2, 3] and (run / "checkpoint-epoch-0003").is_dir()
