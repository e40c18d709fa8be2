"""A search by latency and by the AP of a class, on a real local Ray."""

import json

import pytest
from training_jobs import train_job

from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.jobs.job_file import validate

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_latency_and_classes_are_weighed_and_what_is_too_large_is_never_trained(ray_session, shapes_dataset, tmp_path,
                                                                                capfd):
    from yolov7_ray.tune.tuner import tune

    name = load_manifest(shapes_dataset).classes[1]
    tune(validate({"kind": "tune", "train": train_job(shapes_dataset, "runs", epochs=1), "storage": str(tmp_path),
                   "search": {"model.width": {"choice": [0.25, 0.5, 1.0]}},
                   "objectives": {f"ap/{name}": "max", "latency_ms": "min"},
                   "constraints": {"parameters": "<= 2e6"}, "budget": {"trials": 5, "share": 1}}), "search")
    rows = json.loads((tmp_path / "search/trials.json").read_text())
    trained = {row["values"]["model.width"]: row for row in rows if row["status"] == "trained"}
    [rejected] = [row for row in rows if row["status"] == "rejected"]
    assert sorted(trained) == [0.25, 0.5] and rejected["values"] == {"model.width": 1.0}
    assert rejected["reason"].startswith("parameters ") and rejected["reason"].endswith(" is not <= 2000000")
    for row in trained.values():
        assert row["figures"]["latency_ms"] > 0 and row["figures"]["latency_ms_spread"] >= 0
        assert 0 <= row["figures"][f"ap/{name}"] <= 1 and row["figures"]["parameters"] < 2e6
    assert trained[0.5]["figures"]["gflops"] > 2 * trained[0.25]["figures"]["gflops"]
    assert len(list((tmp_path / "search/latency").iterdir())) == 2
    assert "1 point rejected, the last: parameters" in capfd.readouterr().out
