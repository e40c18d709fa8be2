"""Evaluation is the same on any number of workers, and refuses a dataset of other classes."""

import json
import shutil
from pathlib import Path

import pytest
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.registry.model_source import load_model

from yolov7.architectures.family import ARCHITECTURES
from yolov7.checkpoints.weights import save_model
from yolov7.model.describe import count_flops, count_parameters
from yolov7.model.detector import build_model

pytestmark = pytest.mark.ray


@pytest.fixture
def model_file(shapes_dataset, tmp_path) -> str:
    classes = list(load_manifest(shapes_dataset).classes)
    path = tmp_path / "model.safetensors"
    save_model(path, build_model(ARCHITECTURES["yolov7-tiny"].scaled(depth=0.5, width=0.25), len(classes)), classes,
               image_size_px=64)
    return str(path)


def evaluate(model: str, dataset: str, storage_uri: str, workers: int, image_size_px: int | None = None) -> dict:
    from yolov7_ray.evaluate.evaluate import evaluate

    job = {"kind": "evaluate", "model": model, "dataset": dataset, "storage": storage_uri,
           "image_size_px": image_size_px, "resources": {"workers": workers}, "evaluation": {"batch_size": 4}}
    return evaluate(validate(job), f"evaluate-{workers}")


def test_workers_share_the_work_and_agree(ray_session, shapes_dataset, model_file, tmp_path, capfd):
    one = evaluate(model_file, shapes_dataset, str(tmp_path / "runs"), 1, image_size_px=64)
    two = evaluate(model_file, shapes_dataset, str(tmp_path / "runs"), 2)
    written = [json.loads(Path(outputs["run"], "results.json").read_text()) for outputs in (one, two)]
    results = [found["metrics"] for found in written]
    model = load_model(model_file).model
    assert [(found["dataset_fingerprint"], found["parameters"], found["gflops"]) for found in written] == [
        (load_manifest(shapes_dataset).fingerprint, count_parameters(model), count_flops(model, 64) / 1e9)] * 2
    assert results[0] == results[1], "and a bare model file knows the size that it was trained at"
    assert results[0]["overall"]["num_images"] == 7
    assert "</svg>" in Path(two["run"], "report/index.html").read_text()
    assert "AP50" in capfd.readouterr().out


def test_other_classes_are_refused(shapes_dataset, tmp_path):
    path = tmp_path / "other.safetensors"
    save_model(path, build_model(ARCHITECTURES["yolov7-tiny"].scaled(depth=0.5, width=0.25), 2), ["cat", "dog"])
    with pytest.raises(JobError, match=r"knows the classes \['cat', 'dog'\].*same classes"):
        evaluate(str(path), shapes_dataset, str(tmp_path), 1)


def test_an_image_size_that_the_model_cannot_see_is_refused_at_once(shapes_dataset, model_file, tmp_path):
    from yolov7_ray.evaluate.evaluate import check_model

    job = {"kind": "evaluate", "model": model_file, "dataset": shapes_dataset, "image_size_px": 70}
    with pytest.raises(JobError, match="70 is not a multiple of the model's largest stride 32; choose 64 or 96"):
        check_model(validate(job))


def test_a_damaged_shard_is_one_message_without_traceback(ray_session, shapes_dataset, model_file, tmp_path):
    dataset = Path(shutil.copytree(shapes_dataset, tmp_path / "damaged"))
    shard = next((dataset / "val").glob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(JobError, match="truncated") as caught:
        evaluate(model_file, str(dataset), str(tmp_path / "runs"), 1)
    assert "Traceback" not in str(caught.value)
