"""Tuning: search space, Pareto front, and real trials on a real local Ray."""

import json
from pathlib import Path

import pytest
import yaml

from training_jobs import train_job
from yolov7_ray import storage
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import load_job
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.job import KIND
from yolov7_ray.tune.spec import JOB_RECORD
from yolov7_ray.tune.report import table, write_report, Trial
from yolov7_ray.tune.scheduler import pareto_front


def tune_job(dataset: str, storage_uri: str, **changes) -> dict:
    return {"kind": "tune", "train": train_job(dataset, "runs", epochs=2), "storage": storage_uri, "trials": 3,
            "search": {"model.width": {"choice": [0.25, 0.5]},
                       "optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]}}} | changes


def test_the_front_holds_the_undominated_points():
    assert pareto_front([(0.5, 10), (0.4, 5), (0.3, 7), (0.6, 20), (0.6, 25)]) == [1, 0, 3]
    assert pareto_front([(0.5, 10), (0.5, 10)]) == [0]


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
])
def test_an_invalid_search_is_rejected_at_once(search, message):
    with pytest.raises(JobError, match=message):
        validate(tune_job("data", "runs", search=search))


def test_trials_without_evaluation_report_the_cause(tmp_path):
    spec = validate(tune_job("data", "runs"))
    trials = [Trial("a", {}, "run/a", None, "Traceback …\nRuntimeError: no space left")]
    with pytest.raises(JobError, match="none of 1 trials reached an evaluation; RuntimeError: no space left"):
        write_report(str(tmp_path), spec, trials)


def test_the_table_marks_the_front():
    row = {"trial": "a1", "values": {"model.width": 0.5}, "ap": 0.25, "ap50": 0.5, "gflops": 1.5, "epochs": 2}
    assert table([row | {"on_front": True}]).splitlines()[1].split() == ["*", "a1", "0.25", "0.5", "1.5", "2", "0.5"]


@pytest.mark.ray
@pytest.mark.slow
def test_trials_give_a_table_a_picture_and_a_job_file_that_runs(ray_session, shapes_dataset, tmp_path, capfd):
    from yolov7_ray.tune.tuner import tune

    outputs = tune(validate(tune_job(shapes_dataset, str(tmp_path))), "search")
    run = Path(outputs["run"])
    rows = json.loads((run / "trials.json").read_text())
    assert len(rows) == 3 and all(row["error"] is None and row["ap"] is not None for row in rows)
    assert {row["values"]["model.width"] for row in rows} <= {0.25, 0.5}
    assert len({row["gflops"] for row in rows}) == len({row["values"]["model.width"] for row in rows})
    assert (run / "front.png").stat().st_size > 1000
    best = load_job(outputs["best_job"])
    assert best.kind == "train" and best.model.width == outputs["best"]["values"]["model.width"]
    assert yaml.safe_load((run / "best.yaml").read_text())["epochs"] == 2
    printed = capfd.readouterr().out
    assert "GFLOPs" in printed and "trial" in printed

    again = tune(validate(tune_job(shapes_dataset, str(tmp_path))), "search")
    assert [row["trial"] for row in json.loads((run / "trials.json").read_text())] == [r["trial"] for r in rows]
    assert again["best"] == outputs["best"], "a finished search is not searched again"


def test_a_resumed_search_refuses_what_its_trials_are_compared_by(shapes_dataset, tmp_path):
    document = {"kind": "tune", "train": train_job(shapes_dataset, "runs"), "storage": str(tmp_path), "trials": 3,
                "search": {"optimizer.learning_rate": {"loguniform": [0.001, 0.1]}}}
    spec = validate(document)
    assert KIND.check_resume(spec, "s") == []
    storage.write_json(str(tmp_path / "s" / JOB_RECORD), {
        "job": spec.model_dump(mode="json"), "fingerprint": load_manifest(shapes_dataset).fingerprint})
    assert KIND.check_resume(spec, "s") == []
    assert KIND.check_resume(validate(document | {"max_concurrent_trials": 1}), "s") == ["max_concurrent_trials: nothing -> 1"]
    with pytest.raises(JobError, match=r"searches with trials 3 \(the job says 5\); give that, or start a new search"):
        KIND.check_resume(validate(document | {"trials": 5}), "s")
    with pytest.raises(JobError, match=r"searches with train.epochs 2 \(the job says 4\)"):
        KIND.check_resume(validate(document | {"train": document["train"] | {"epochs": 4}}), "s")
    record = storage.read_json(str(tmp_path / "s" / JOB_RECORD))
    storage.write_json(str(tmp_path / "s" / JOB_RECORD), record | {"fingerprint": "other"})
    with pytest.raises(JobError, match="searches on other data"):
        KIND.check_resume(spec, "s")
