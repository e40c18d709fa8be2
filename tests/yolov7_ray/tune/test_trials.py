"""Trials on a real local Ray: bitwise as without pauses, recorded as they ended, and not lost with any process."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from training_jobs import DEADLINE_S, ROOT, assert_same_training, processes, train, train_job, wait_for

from yolov7_ray import storage
from yolov7_ray.jobs.job_file import load_job, validate

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PRINTED = re.compile(r"^trial (\w+)  epoch (\d+)/3 .* AP ([0-9.]+)", re.MULTILINE)
KILLED = {"ray::TrialActor": "001/checkpoint-epoch-*-step-*/checkpoint.json",
          "ray::ProgressActor": "002/checkpoint-epoch-*/checkpoint.json"}
"""Kind of process -> file of a trial after which it is killed."""
RUNS_AGAIN = re.compile(r"^trial (\w+)  resumed after epoch", re.MULTILINE)


def tune_job(dataset: str, storage_uri: str, **changes) -> dict:
    return {"kind": "tune", "train": train_job(dataset, "runs", epochs=3), "storage": storage_uri,
            "budget": {"trials": 3, "share": 0.7}, "reduction_factor": 2, "search": {
                "model.width": {"choice": [0.25, 0.5]}, "data.image_size_px": {"choice": [64, 96]}}} | changes


def tune(document: dict, name: str) -> dict:
    from yolov7_ray.tune.tuner import tune

    return tune(validate(document), name)


def test_every_trial_is_recorded_as_it_ended_and_a_finished_search_is_extended(ray_session, shapes_dataset, tmp_path,
                                                                               capfd):
    document, run = tune_job(shapes_dataset, str(tmp_path)), tmp_path / "search"
    outputs = tune(document, "search")
    assert outputs["run"] == str(run)
    rows = json.loads((run / "trials.json").read_text())
    printed = capfd.readouterr().out
    assert len(rows) == 3 and all(row["error"] is None for row in rows)
    assert len({json.dumps(row["values"]) for row in rows}) == 3, "no values twice"
    last = {trial: (int(epoch), float(ap)) for trial, epoch, ap in PRINTED.findall(printed)}
    assert {row["status"] for row in rows} == {"trained", "stopped"}
    for row in rows:
        assert (row["epochs"], round(row["last_ap"], 3)) == last[row["trial"]]
        assert row["epoch"] == row["epochs"] and round(row["figures"]["ap"], 3) == last[row["trial"]][1]
        assert (row["status"] == "trained") == (row["epoch"] == 3) and (row["epoch"] == 3 or row["reason"])
        assert (Path(row["run"]) / "report" / "index.html").exists()
        assert row["checkpoint"] is None or Path(row["checkpoint"]).exists()
        assert len(list(Path(row["run"]).glob("checkpoint-*"))) <= 2
    assert RUNS_AGAIN.search(printed), "a trial paused and was promoted"
    assert "tensorboard --logdir" not in printed and "/tmp/ray" not in printed and "ray_results" not in printed
    best = load_job(outputs["best_job"])
    assert best.kind == "train" and best.epochs == 3

    paused = next(row for row in rows if row["status"] == "trained" and row["checkpoint"])
    job = load_job(str(Path(paused["run"]) / "spec.json")).model_dump(mode="json")
    assert_same_training(train(job | {"storage": str(tmp_path / "alone")}, "alone")["run"], paused["run"])

    assert tune(document, "search")["best"] == outputs["best"], "a finished search is not searched again"
    tune(document | {"budget": {"trials": 9, "share": 0.7}}, "search")
    extended = json.loads((run / "trials.json").read_text())
    assert len({json.dumps(row["values"]) for row in extended}) == len(extended) == 4, "the space holds four"
    assert {row["trial"] for row in rows} < {row["trial"] for row in extended}


def test_trials_of_two_workers_in_s3_are_those_of_a_train_job(ray_session, shapes_dataset, s3, tmp_path):
    job = train_job(shapes_dataset, "runs", epochs=2, batch_size=7, resources={"workers": 2})
    outputs = tune(tune_job(shapes_dataset, s3, train=job, algorithm="random", budget={"trials": 2}), "search")
    rows = storage.read_json(f"{s3}/search/trials.json")
    assert outputs["run"] == f"{s3}/search" and [row["status"] for row in rows] == ["trained", "trained"]
    document = storage.read_json(f"{rows[0]['run']}/spec.json")
    alone = train(document | {"storage": str(tmp_path)}, "alone")["run"]
    found, expected = (storage.read_json(f"{run}/results.json")["epochs"] for run in (rows[0]["run"], alone))
    assert [(row["epoch"], row["train/box"], row["ap"]) for row in found] == [
        (row["epoch"], row["train/box"], row["ap"]) for row in expected]


@pytest.mark.long
def test_processes_that_are_killed_are_replaced_and_the_search_ends_as_without_that(ray_session, shapes_dataset, tmp_path,
                                                                                    capfd):
    document = tune_job(shapes_dataset, str(tmp_path), max_concurrent_trials=1, train=train_job(
        shapes_dataset, "runs", epochs=4, checkpoint={"every_updates": 1}))
    rows = {}
    for name in ("undisturbed", "disturbed"):
        failure: list[BaseException] = []

        def body(name: str = name, failure: list = failure) -> None:
            try:
                tune(document, name)
            except BaseException as error:  # noqa: BLE001  (handed to the test's thread)
                failure.append(error)

        before = {kind: set(processes(kind)) for kind in KILLED}
        runner = threading.Thread(target=body, daemon=True)
        runner.start()
        for kind, sign in KILLED.items() if name == "disturbed" else ():
            wait_for(tmp_path / name / "trials", sign)
            victims = set(processes(kind)) - before[kind]
            assert victims, kind
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
        runner.join(DEADLINE_S)
        assert not runner.is_alive() and not failure, failure
        rows[name] = json.loads((tmp_path / name / "trials.json").read_text())
    said = capfd.readouterr().out
    assert re.search(r"trial 001  was lost \(its process or its node died\); going on from its last checkpoint, "
                     "1 of 2 retries", said)
    keys = ("trial", "values", "status", "epoch", "figures", "ap", "spent", "reason")
    assert [{key: row[key] for key in keys} for row in rows["disturbed"]] == [
        {key: row[key] for key in keys} for row in rows["undisturbed"]]
    for row, other in zip(rows["undisturbed"], rows["disturbed"]):
        assert (row["checkpoint"] is None) == (other["checkpoint"] is None)
        if row["checkpoint"]:
            assert_same_training(row["run"], other["run"])


def test_an_actor_that_dies_between_two_trials_costs_none_of_them(ray_session, shapes_dataset, tmp_path, monkeypatch,
                                                                  capfd):
    from yolov7_ray.tune.follower import Follower

    ended, on_trial_complete = [], Follower.on_trial_complete

    def kill_first(self, iteration, trials, trial, **info) -> None:
        if not ended:
            os.kill(trial.last_result["pid"], signal.SIGKILL)
        ended.append(trial.trial_id)
        on_trial_complete(self, iteration, trials, trial, **info)

    monkeypatch.setattr(Follower, "on_trial_complete", kill_first)
    tune(tune_job(shapes_dataset, str(tmp_path), algorithm="random", budget={"trials": 3}, max_concurrent_trials=1,
                  train=train_job(shapes_dataset, "runs", epochs=1)), "search")
    rows = storage.read_json(str(tmp_path / "search/trials.json"))
    assert [row["status"] for row in rows] == ["trained"] * 3 and len(ended) == 3
    assert "trial 002  was lost (its process or its node died)" in capfd.readouterr().out


def interrupted(job: Path, run: str) -> tuple[int, str]:
    """Status and output of a job that gets a Ctrl-C after the first epoch of its search."""
    process = subprocess.Popen([sys.executable, ROOT / "submit.py", job, "--name", run], cwd=job.parent, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline, before = threading.Timer(DEADLINE_S, process.kill), ""
    deadline.start()
    try:
        while "  epoch 1/1000" not in (line := process.stdout.readline()):
            assert line, f"it ended before its first epoch: {before}"
            before += line
        process.send_signal(signal.SIGINT)
        return process.wait(), before + line + process.communicate()[0]
    finally:
        deadline.cancel()
        process.kill()


def endless(dataset: str, storage_uri: Path) -> dict:
    """A search that only a Ctrl-C ends."""
    return tune_job(dataset, str(storage_uri), budget={"trials": 1}, grace_epochs=1000, max_concurrent_trials=1,
                    train=train_job(dataset, "runs", epochs=1000))


def test_ctrl_c_saves_the_trials_and_says_how_to_go_on(shapes_dataset, tmp_path):
    job = tmp_path / "tune.yaml"
    job.write_text(json.dumps(endless(shapes_dataset, tmp_path / "runs")))
    status, said = interrupted(job, "s")
    assert status == 130, said
    assert f"interrupted; python submit.py {job} --resume s (and the same --set) goes on" in said
    assert "saved after epoch" in said and "done in" not in said and "Error" not in said, said
    [row] = storage.read_json(str(tmp_path / "runs/s/trials.json"))
    assert row["status"] == "running", "a resumed search goes on with the trial"
    assert list((tmp_path / "runs/s/trials").glob("*/checkpoint-*"))


def test_ctrl_c_in_the_search_of_a_pipeline_ends_all_of_it(shapes_dataset, tmp_path):
    job = tmp_path / "pipeline.yaml"
    job.write_text(json.dumps({"kind": "pipeline", "steps": {
        "search": endless(shapes_dataset, tmp_path / "runs"),
        "train": {"kind": "train", "job": "${search.best_job}", "storage": str(tmp_path / "trained")}}}))
    status, said = interrupted(job, "p")
    assert status == 130, said
    assert f"interrupted; python submit.py {job} --resume p (and the same --set) goes on" in said
    assert "saved after epoch" in said and "[2/2]" not in said and "done in" not in said and "Error" not in said, said
    assert not (tmp_path / "trained").exists(), "the next step does not run"
    [row] = storage.read_json(str(tmp_path / "runs/p-search/trials.json"))
    assert row["status"] == "running" and not (tmp_path / "runs/p-search/best.yaml").exists()
