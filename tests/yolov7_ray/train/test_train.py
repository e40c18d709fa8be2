"""Training on a real local Ray: the output of a run, and that killed and resumed equals uninterrupted."""

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from training_jobs import DEADLINE_S, assert_same_training, processes, submit, train, train_job, wait_for

from yolov7.checkpoints.weights import trained_image_size_px
from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.registry.model_source import load_model
from yolov7_ray.train.checkpoints import checkpoint_name, Checkpoints

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def uninterrupted(ray_session, shapes_dataset, tmp_path_factory) -> str:
    """A run of four epochs without interruption."""
    job = train_job(shapes_dataset, str(tmp_path_factory.mktemp("runs")), epochs=4)
    return train(job, "uninterrupted")["run"]


def test_two_workers_leave_checkpoints_results_events_plots_and_a_page(ray_session, shapes_dataset, tmp_path, capfd):
    job = train_job(shapes_dataset, str(tmp_path), epochs=3, batch_size=7,
                    resources={"workers": 2}, checkpoint={"keep_best": 1})
    outputs = train(job, "two-workers")
    run = Path(outputs["run"])
    results = json.loads((run / "results.json").read_text())
    assert [row["epoch"] for row in results["epochs"]] == [1, 2, 3]
    assert all(row["num_images"] == 23 for row in results["epochs"]), "every sample exactly once per epoch"
    assert results["metrics"]["overall"]["num_images"] == 7, "validation is shared without repeating an image"
    assert {"fetch", "step", "evaluate/fetch", "evaluate/detect"} <= set(results["epochs"][-1]["seconds"])
    kept = sorted(path.name for path in run.glob("checkpoint-epoch-*"))
    assert results["last_checkpoint"] == "checkpoint-epoch-0003" and results["last_checkpoint"] in kept
    assert results["best_checkpoint"] in kept and len(kept) <= 3
    assert list(run.glob("tensorboard/events*"))
    for picture in ("losses.png", "ap.png", "pr-curves.png", "confusion-matrix.png", "train-batches.jpg"):
        assert (run / "report" / picture).stat().st_size > 1000
    page = (run / "report/index.html").read_text()
    assert "3 of 3" in page and "class='card case'" in page and "alt='first training batches'" in page
    assert len((run / "results.csv").read_text().splitlines()) == 4
    loaded = load_model(str(run))
    assert loaded.image_size_px == 64 and loaded.classes == results["classes"]
    files = [run / "checkpoint-epoch-0003" / name for name in ("ema.safetensors", "model.safetensors")]
    assert [trained_image_size_px(file) for file in files] == [64, 64]
    said = capfd.readouterr().out
    stages = ["waiting for 2 workers", "waiting for the dataset", "waiting for the first step", "epoch 1/3",
              "epoch 3/3"]
    assert [said.find(stage) for stage in stages] == sorted(map(said.find, stages)) and stages[0] in said


def test_a_run_lives_in_s3(ray_session, shapes_dataset, s3):
    outputs = train(train_job(shapes_dataset, s3, epochs=1), "in-s3")
    assert outputs["run"] == f"{s3}/in-s3"
    assert load_model(outputs["checkpoint"]).image_size_px == 64
    assert storage.exists(storage.join(outputs["run"], "report/index.html"))


def test_a_worker_killed_in_the_middle_of_an_epoch_changes_nothing(uninterrupted, shapes_dataset, tmp_path):
    job = train_job(shapes_dataset, str(tmp_path), epochs=4, checkpoint={"every_updates": 1})
    failure: list[BaseException] = []

    def body() -> None:
        try:
            train(job, "worker-killed")
        except BaseException as error:  # noqa: BLE001  (handed to the test's thread)
            failure.append(error)

    before = set(processes("ray::RayTrainWorker"))
    runner = threading.Thread(target=body, daemon=True)
    runner.start()
    wait_for(tmp_path / "worker-killed", "checkpoint-epoch-*-step-*/checkpoint.json")
    victims = set(processes("ray::RayTrainWorker")) - before
    assert victims, "no worker to kill"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    runner.join(DEADLINE_S)
    assert not runner.is_alive() and not failure, failure
    assert_same_training(uninterrupted, str(tmp_path / "worker-killed"))


@pytest.mark.long  # orphans of a killed driver need a minute to notice its death
def test_a_killed_driver_resumes_by_name_and_leaves_no_orphans(uninterrupted, shapes_dataset, tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(train_job(shapes_dataset, str(tmp_path / "runs"), epochs=4)))
    mine = set(processes("ray"))
    driver = submit(str(job), "--name", "driver-killed")
    wait_for(tmp_path / "runs/driver-killed", "checkpoint-epoch-0002/checkpoint.json")
    started = set(processes("ray")) - mine - {driver.pid}
    driver.kill()
    driver.communicate(timeout=300)
    deadline = time.monotonic() + 600  # the agents of a dead raylet wait about 80 s for its GCS before they leave
    while alive := {pid for pid in started if Path(f"/proc/{pid}").exists()}:
        assert time.monotonic() < deadline, f"orphans of the killed driver: {alive}"
        time.sleep(0.2)
    resumed = submit(str(job), "--resume", "driver-killed")
    output, _ = resumed.communicate(timeout=DEADLINE_S)
    assert resumed.returncode == 0, output
    assert "resumed after epoch" in output
    assert_same_training(uninterrupted, str(tmp_path / "runs/driver-killed"))


def test_a_run_killed_before_its_report_gets_the_report(uninterrupted, shapes_dataset, tmp_path):
    run = tmp_path / "cut-short"
    shutil.copytree(uninterrupted, run)
    shutil.rmtree(run / "report")
    (run / "results.json").unlink()
    train(train_job(shapes_dataset, str(tmp_path), epochs=4), "cut-short")
    assert_same_training(uninterrupted, str(run))
    whole, completed = (json.loads(Path(path, "results.json").read_text()) for path in (uninterrupted, run))
    assert completed["metrics"] == whole["metrics"] and (run / "report/index.html").exists()


def test_a_terminated_job_saves_first(shapes_dataset, tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(train_job(shapes_dataset, str(tmp_path / "runs"), epochs=500)))
    driver = submit(str(job), "--name", "terminated")
    wait_for(tmp_path / "runs/terminated", "checkpoint-epoch-0001/checkpoint.json")
    driver.terminate()
    output, _ = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 128 + signal.SIGTERM, output
    [(epoch, step)] = re.findall(r"saved after epoch (\d+), step (\d+)", output)
    names = Checkpoints(str(tmp_path / "runs/terminated"), 1).names()
    assert checkpoint_name(int(epoch), int(step)) in names, (names, output)


def test_a_resumed_run_refuses_another_model_and_other_data(uninterrupted, shapes_dataset):
    runs, name = uninterrupted.rsplit("/", 1)
    other = train_job(shapes_dataset, runs, epochs=4, model={"architecture": "yolov7-tiny", "width": 0.5})
    with pytest.raises(JobError, match=r"has learnt with model.depth 0.5 \(the job says nothing\)"):
        train(other, name)


def test_transfer_learning_on_two_workers_with_every_freebie(uninterrupted, ray_session, shapes_dataset, tmp_path):
    """Frozen layers, fitted anchors, several scales, weighted images; rectangular evaluation from several views."""
    model = {"architecture": "yolov7-tiny", "depth": 0.5, "width": 0.25, "weights": uninterrupted,
             "freeze": ["backbone"], "anchors": "auto"}
    job = train_job(shapes_dataset, str(tmp_path), model=model, resources={"workers": 2},
                    data={"image_size_px": 64, "image_weights": True, "multi_scale": 0.5},
                    evaluation={"rectangular": True, "test_time_augmentation": True})
    results = json.loads(Path(train(job, "freebies")["run"], "results.json").read_text())
    trained, source = load_model(str(tmp_path / "freebies")).model, load_model(uninterrupted).model
    for (name, value), before in zip(trained.state_dict().items(), source.state_dict().values(), strict=True):
        assert torch.equal(value, before) == name.startswith("backbone."), name
    anchors = trained.architecture.anchors_px
    assert results["spec"]["model"]["anchors"] == [[list(size) for size in level] for level in anchors]
    assert trained.anchors_px.tolist() == torch.tensor(anchors).tolist() != source.anchors_px.tolist()
    assert all(len(row["class_ap"]) == len(results["classes"]) and row["num_images"] == 23 for row in results["epochs"])
    assert results["metrics"]["overall"]["num_images"] == 7


def test_a_split_without_images_and_a_missing_dataset_are_refused_before_any_worker(shapes_dataset, tmp_path):
    with pytest.raises(JobError, match="holds no dataset|no dataset"):
        train(train_job(str(tmp_path / "nowhere"), str(tmp_path)), "x")
    with pytest.raises(JobError, match="train.*val"):
        train(train_job(shapes_dataset, str(tmp_path), data={"image_size_px": 64, "val_split": "test"}), "x")
