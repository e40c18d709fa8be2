"""Tuning: search space, Pareto front, and real trials on a real local Ray."""

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from training_jobs import DEADLINE_S, ROOT, train_job

from yolov7_ray import storage
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import load_job, validate
from yolov7_ray.tune.follower import line
from yolov7_ray.tune.job import KIND
from yolov7_ray.tune.report import pareto_front, table, write_report
from yolov7_ray.tune.spec import JOB_RECORD
from yolov7_ray.tune.trial import Trial


def tune_job(dataset: str, storage_uri: str, **changes) -> dict:
    return {"kind": "tune", "train": train_job(dataset, "runs", epochs=2), "storage": storage_uri,
            "budget": {"trials": 3}, "search": {"model.width": {"choice": [0.25, 0.5]},
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


def test_trials_without_evaluation_report_the_cause(tmp_path):
    spec = validate(tune_job("data", "runs"))
    trials = [Trial("a", {}, "run/a", None, "Traceback …\nRuntimeError: no space left")]
    with pytest.raises(JobError, match="none of 1 trials reached an evaluation; RuntimeError: no space left"):
        write_report(str(tmp_path), spec, trials)


def test_the_table_marks_the_front():
    row = {"trial": "a1", "values": {"model.width": 0.5}, "ap": 0.25, "ap50": 0.5, "gflops": 1.5, "epochs": 2,
           "error": None, "stopped": None}
    assert table([row | {"on_front": True}]).splitlines()[1].split() == ["*", "a1", "0.25", "0.5", "1.5", "2",
                                                                       "trained", "0.5"]


def trial(name: str, ap: float, values: dict, **changes) -> Trial:
    results = {"best": {"ap": ap, "ap50": 0.5}, "best_checkpoint": "checkpoint-epoch-0001", "gflops": 1.5,
               "parameters": 10, "epochs": [{"ap": ap}, {"ap": None}, {"ap": ap / 2}]}
    return Trial(**{"trial_id": name, "values": values, "run": f"runs/s/trials/{name}", "results": results,
                    "error": None} | changes)


def test_a_trial_that_ended_is_told_with_the_reason_and_the_time_left():
    values = {"model.width": 0.5}
    assert line(trial("a", 0.25, values, stopped="AP 0.1 is low"), 3, 8, 700) == (
        "trial a  AP 0.25 after 3 epochs, 1.5 GFLOPs; stopped: AP 0.1 is low\n"
        "  3 of 8 trials have ended, about 12 min left")
    failed = trial("b", 0.25, values, results=None, error="Traceback\n  x\nOSError: no space\n")
    assert line(failed, 8, 8, 0) == "trial b  failed: OSError: no space\n  8 of 8 trials have ended"


def test_a_search_of_hyperparameters_is_drawn_against_its_values(tmp_path):
    search = {"optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]},
              "optimizer.algorithm": {"choice": ["sgd", "adam"]}}
    spec = validate(tune_job("data", "runs", search=search))
    trials = [trial("a", 0.2, {"optimizer.learning_rate": 0.01, "optimizer.algorithm": "adam"}),
              trial("b", 0.3, {"optimizer.learning_rate": 0.02, "optimizer.algorithm": "sgd"}, stopped="low")]
    best = write_report(str(tmp_path), spec, trials)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.yaml", "trials.json", "values.png"]
    assert (best["trial"], best["ap"], best["last_ap"]) == ("b", 0.3, 0.15)
    assert best["checkpoint"] == "runs/s/trials/b/checkpoint-epoch-0001" and best["stopped"] == "low"
    assert load_job(str(tmp_path / "best.yaml")).optimizer.learning_rate == 0.02


def test_a_pipeline_takes_the_best_of_a_search():
    for output in ("run", "best_job", "checkpoint", "model"):
        validate({"kind": "pipeline", "steps": {"tune": tune_job("data", "runs"), "publish": {
            "kind": "publish", "model": "${tune.%s}" % output, "registry": "registry", "publish_as": "best"}}})


PRINTED = re.compile(r"^trial (\w+)  epoch (\d+)/3 .* AP ([0-9.]+)", re.MULTILINE)


@pytest.mark.ray
@pytest.mark.slow
def test_every_trial_is_recorded_as_it_ended_and_a_finished_search_is_extended(ray_session, shapes_dataset, tmp_path,
                                                                               capfd):
    from yolov7_ray.tune.tuner import tune

    document = tune_job(shapes_dataset, str(tmp_path), reduction_factor=2,
                        train=train_job(shapes_dataset, "runs", epochs=3), search={
                            "model.width": {"choice": [0.25, 0.5]}, "data.image_size_px": {"choice": [64, 96]}})
    run = tmp_path / "search"
    storage.write_json(str(run / "rungs.json"), {"recorded": {"1": {"earlier": 1.0}}, "stopped": {}})
    outputs = tune(validate(document), "search")
    assert outputs["run"] == str(run)
    rows = json.loads((run / "trials.json").read_text())
    printed = capfd.readouterr().out
    assert len(rows) == 3 and all(row["error"] is None for row in rows)
    assert len({json.dumps(row["values"]) for row in rows}) == 3, "no values twice"
    last = {trial: (int(epoch), float(ap)) for trial, epoch, ap in PRINTED.findall(printed)}
    stopped = json.loads((run / "rungs.json").read_text())["stopped"]
    assert len(stopped) >= 2, "below 1.0, and below half of it"
    for row in rows:
        assert (row["epochs"], round(row["last_ap"], 3)) == last[row["trial"]]
        assert row["epochs"] == (stopped[row["trial"]]["epoch"] if row["stopped"] else 3)
        assert (Path(row["run"]) / "report" / "index.html").exists()
        assert Path(row["checkpoint"]).exists()
        assert row["trial"] in printed and (row["stopped"] or "AP") in printed
    assert "3 of 3 trials have ended" in printed and "GFLOPs" in printed
    assert (run / "front.png").stat().st_size > 1000
    assert outputs["checkpoint"] == rows[0]["checkpoint"] and outputs["model"] == rows[0]["run"]
    best = load_job(outputs["best_job"])
    assert best.kind == "train" and best.model.width == rows[0]["values"]["model.width"]
    assert (best.epochs, best.storage) == (3, str(tmp_path))

    assert tune(validate(document), "search")["best"] == outputs["best"], "a finished search is not searched again"
    tune(validate(document | {"budget": {"trials": 9}}), "search")
    extended = json.loads((run / "trials.json").read_text())
    assert len({json.dumps(row["values"]) for row in extended}) == len(extended) == 4, "the space holds four"
    assert {row["trial"] for row in rows} < {row["trial"] for row in extended}


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_saves_the_trials_and_says_how_to_go_on(shapes_dataset, tmp_path):
    job = tmp_path / "tune.yaml"
    job.write_text(json.dumps(tune_job(shapes_dataset, str(tmp_path / "runs"), budget={"trials": 1},
                                       max_concurrent_trials=1, train=train_job(shapes_dataset, "runs", epochs=1000))))
    process = subprocess.Popen([sys.executable, ROOT / "submit.py", job, "--name", "s"], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = threading.Timer(DEADLINE_S, process.kill)
    deadline.start()
    try:
        while "  epoch 1/1000" not in (line := process.stdout.readline()):
            assert line, "it ended before its first epoch"
        process.send_signal(signal.SIGINT)
        rest = process.communicate()[0]
    finally:
        deadline.cancel()
        process.kill()
    assert process.returncode == 130, rest
    assert f"interrupted; python submit.py {job} --resume s (and the same --set) goes on" in rest
    assert "saved after epoch" in rest and "done in" not in rest and "Error" not in rest, rest
    assert not (tmp_path / "runs/s/trials.json").exists()
    state = max((tmp_path / "runs/s").glob("experiment_state-*.json"), key=lambda path: path.stat().st_mtime)
    assert "RUNNING" in state.read_text(), "a resumed search goes on with the trial"
    assert list((tmp_path / "runs/s/trials").glob("*/checkpoint-*"))


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
