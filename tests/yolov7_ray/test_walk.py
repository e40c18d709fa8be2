"""The walk on real input with the committed job files: raw images in each format to predictions of a published model."""

import json
from pathlib import Path

import pytest
from conftest import make_yolo, real_data

from yolov7_ray import storage
from yolov7_ray.jobs.job_file import load_job
from yolov7_ray.registry.registry import Registry
from yolov7_ray.jobs.kinds import kind_of
from yolov7_ray.jobs.spec import Job

pytestmark = [pytest.mark.ray, pytest.mark.slow]
JOBS = Path(__file__).parents[2] / "jobs"
SMALL = ["model={architecture: yolov7-tiny, depth: 0.5, width: 0.25}", "data.image_size_px=96", "epochs=1",
         "optimizer.warmup_epochs=1", "batch_size=32", "resources.workers=2", "resources.gpus_per_worker=0",
         "resources.cpus_per_worker=1"]


def run(job: Job, name: str) -> dict:
    return kind_of(job).run(job, name)


def job(file: str, **values: object):
    return load_job(str(JOBS / file), [f"{key.replace('__', '.')}={value}" for key, value in values.items()])


@pytest.mark.parametrize(("ingest", "source", "place"), [
    ("ingest-voc.yaml", "bccd/BCCD", "local"), ("ingest-coco.yaml", "coco-tiny", "local"), ("ingest-yolo.yaml", None, "s3"),
], indirect=["place"])
def test_from_raw_images_to_predictions(ray_session, place, tmp_path, ingest, source):
    source = real_data(source) if source else make_yolo(tmp_path / "yolo", num_images=6)
    dataset, runs, registry = (storage.join(place, name) for name in ("dataset", "runs", "registry"))
    made = run(job(ingest, source__uri=source, dataset=dataset), "walk-ingest")
    spec = load_job(str(JOBS / "train-yolov7-tiny-bccd.yaml"), [f"dataset={dataset}", f"storage={runs}", *SMALL])
    trained = run(spec, "walk-train")
    results = storage.read_json(storage.join(trained["run"], "results.json"))
    assert results["dataset_fingerprint"] == made["fingerprint"]

    evaluated = run(job("evaluate-detector.yaml", model=trained["run"], dataset=dataset, storage=runs, split="val"),
                    "walk-evaluate")
    again = storage.read_json(storage.join(evaluated["run"], "results.json"))
    counted = [run["metrics"]["overall"]["num_objects"] for run in (results, again)]
    assert counted[0] == counted[1] > 0

    published = run(job("publish-detector.yaml", model=trained["run"], registry=registry, dataset=dataset), "walk-publish")
    version = Registry(registry).resolve(published["model"])
    assert version.dataset_fingerprint == made["fingerprint"] and version.parity["max_relative_difference"] < 1e-3

    predicted = run(job("predict-detector.yaml", model=published["model"], registry=registry, images=dataset,
                        output=storage.join(place, "predictions"), confidence_threshold=0.001), "walk-predict")
    summary = json.dumps(storage.read_json(storage.join(predicted["output"], "predictions.json")))
    assert published["model"] in summary
