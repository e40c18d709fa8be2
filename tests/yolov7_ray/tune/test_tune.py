"""Tuning: search space, checkpoints that are kept, and what of it a resumed search keeps."""

import pytest
from searches import tune_job
from training_jobs import train_job

from yolov7_ray import storage
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.job import KIND
from yolov7_ray.tune.spec import JOB_RECORD
from yolov7_ray.tune.trial import Trial, remove_dominated


def test_a_trial_is_the_train_job_with_its_values_validated_anew():
    spec = validate(tune_job("data", "runs"))
    trial = spec.trial({"model.width": 0.5, "optimizer.learning_rate": 0.02})
    assert trial.model.width == 0.5 and trial.optimizer.learning_rate == 0.02
    assert trial.augment == spec.train.augment and spec.searches_architecture


@pytest.mark.parametrize(("search", "message"), [
    ({"optimizer.lr": {"choice": [1]}}, "search.optimizer.lr: is no key of the train job"),
    ({"model.width": {"uniform": [0.1, 1]}}, "search.model.width: 0.1 is refused by the train job"),
    ({"data.image_size_px": {"choice": [64, 100]}}, "search.data.image_size_px: 100 is refused.*largest stride"),
    ({"model.width": {"gaussian": [0, 1]}}, "gaussian"),
    ({"data.image_size_px": {"integer": [64, 128]}}, "search.data.image_size_px: 65 is refused.*choose 64 or 96"),
    ({"data.image_size_px": {"quantized": [64, 128, 16]}}, "search.data.image_size_px: 80.0 is refused.*stride"),
    ({"augment.scale": {"uniform": [0.9, 0.2]}}, "search.augment.scale.uniform: 0.9 is above 0.2"),
    ({"optimizer.learning_rate": {"loguniform": [0.1, 0.01]}}, "loguniform: 0.1 is above 0.01"),
    ({"batch_size": {"integer": [9, 3]}}, "search.batch_size.integer: 9 is above 3"),
    ({"augment.scale": {"uniform": [0.1, float("inf")]}}, "search.augment.scale.uniform.1: inf does not fit"),
    ({"model.width": {"quantized": [0.25, 1.0, 0.2]}}, "steps of 0.2 from 0.25 do not meet 1; give 0.85"),
    ({"model.width": {"quantized": [0.5, 2.5, 0.5]}}, "search.model.width: 2.5 is refused"),
    ({"model.architecture": {"choice": ["yolov7-tiny", "yolov7-w6"]}, "data.image_size_px": {"choice": [96, 128]}},
     "search.model.architecture: yolov7-w6 with data.image_size_px: 96 is refused.*largest stride 64"),
])
def test_an_invalid_search_is_rejected_at_once(search, message):
    with pytest.raises(JobError, match=message):
        validate(tune_job("data", "runs", search=search))


def test_trials_that_all_end_before_they_are_compared_are_rejected():
    with pytest.raises(JobError, match="grace_epochs: 3 is more than the 2 epochs of a trial"):
        validate(tune_job("data", "runs", grace_epochs=3))
    assert validate(tune_job("data", "runs", grace_epochs=2)).grace_epochs == 2


def trial(name: str, ap: float, values: dict, **changes) -> Trial:
    results = {"best": {"ap": ap, "ap50": 0.5}, "best_checkpoint": "checkpoint-epoch-0001", "gflops": 1.5,
               "parameters": 10, "epochs": [{"ap": ap}, {"ap": None}, {"ap": ap / 2}]}
    return Trial(**{"trial_id": name, "values": values, "run": f"runs/s/trials/{name}", "results": results,
                    "status": "trained", "epoch": 3, "to_epoch": 3, "figures": {"ap": ap / 2, "gflops": 1.5}} | changes)


def test_checkpoints_of_dominated_trials_are_removed_and_of_others_none(tmp_path):
    def saved(name: str, ap: float, gflops: float, status: str = "trained") -> Trial:
        for epoch in (1, 2):
            storage.write_json(str(tmp_path / name / f"checkpoint-epoch-000{epoch}" / "checkpoint.json"), {})
        storage.write_json(str(tmp_path / name / "results.json"), {})
        return trial(name, 0.5, {}, run=str(tmp_path / name), status=status, figures={"ap": ap, "gflops": gflops})

    trials = [saved("large", 0.5, 3), saved("small", 0.3, 1), saved("worse", 0.2, 2), saved("waits", 0.1, 9, "paused"),
              saved("unknown", None, 1)]
    remove_dominated(trials, {"ap": "max", "gflops": "min"})
    left = {path.parent.parent.name for path in tmp_path.glob("*/*/checkpoint.json")}
    assert left == {"large", "small", "waits"} and (tmp_path / "worse/results.json").exists()
    assert [one.row()["checkpoint"] is None for one in trials] == [False, False, True, False, True]


def test_a_resumed_search_refuses_what_its_trials_are_compared_by(shapes_dataset, tmp_path):
    document = {"kind": "tune", "train": train_job(shapes_dataset, "runs"), "storage": str(tmp_path),
                "budget": {"trials": 3}, "search": {"optimizer.learning_rate": {"loguniform": [0.001, 0.1]}}}
    spec = validate(document)
    assert KIND.check_resume(spec, "s") == []
    storage.write_json(str(tmp_path / "s" / JOB_RECORD), {
        "job": spec.model_dump(mode="json"), "fingerprint": load_manifest(shapes_dataset).fingerprint})
    assert KIND.check_resume(spec, "s") == []
    fewer = validate(document | {"max_concurrent_trials": 1})
    assert KIND.check_resume(fewer, "s") == ["max_concurrent_trials: nothing -> 1"]
    assert KIND.check_resume(validate(document | {"budget": {"trials": 5}}), "s") == ["budget.trials: 3 -> 5"]
    with pytest.raises(JobError, match=r"searches with seed 0 \(the job says 5\); give that, or start a new search"):
        KIND.check_resume(validate(document | {"seed": 5}), "s")
    with pytest.raises(JobError, match=r"searches with train.epochs 2 \(the job says 4\)"):
        KIND.check_resume(validate(document | {"train": document["train"] | {"epochs": 4}}), "s")
    record = storage.read_json(str(tmp_path / "s" / JOB_RECORD))
    storage.write_json(str(tmp_path / "s" / JOB_RECORD), record | {"fingerprint": "other"})
    with pytest.raises(JobError, match="searches on other data"):
        KIND.check_resume(spec, "s")
