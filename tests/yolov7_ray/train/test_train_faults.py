"""Faults of training on a real local Ray: kills at every stage, a hanging rank, out of memory, NaN."""

import importlib
import itertools
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ingest_here
from training_jobs import DEADLINE_S, assert_same_training, processes, train, train_job, wait_for

from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.data.sources.spec import ShapesSource
from yolov7_ray.train.checkpoints import Checkpoints

pytestmark = [pytest.mark.ray, pytest.mark.long]

MOMENTS = {
    "fetching a shard": ("yolov7_ray.storage", "_fetch", 3),
    "making a step": ("yolov7.training.engine", "update", 2),
    "evaluating": ("yolov7.training.engine", "postprocess", 1),
    "uploading a file of a checkpoint": ("yolov7_ray.storage", "upload", 2),
    "writing a checkpoint's record": ("yolov7_ray.storage", "write_json", 1),
    "removing an old checkpoint": ("yolov7_ray.storage", "delete", 5),
}
"""Module, function and the number of its call at which a worker dies."""


def dying_at_every_moment(marks: str) -> Callable[[dict], dict]:
    """The training loop that kills its process once at each moment; ``marks`` is the directory that records them."""

    def train_loop(config: dict) -> dict:
        def deadly(moment: str, function: Callable, number: int) -> Callable:
            calls = itertools.count(1)

            def called(*arguments, **keywords):
                if next(calls) == number and not Path(marks, moment).exists():
                    Path(marks, moment).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **keywords)

            return called

        for moment, (module, name, number) in MOMENTS.items():
            module = importlib.import_module(module)
            setattr(module, name, deadly(moment, getattr(module, name), number))
        return importlib.import_module("yolov7_ray.train.loop").train_loop(config)

    return train_loop


def test_kills_at_every_stage_change_nothing(ray_session, s3, tmp_path, monkeypatch):
    """Data and run in S3, the worker killed with SIGKILL; bitwise equal to an undisturbed run."""
    dataset, runs, marks = f"{s3}/shapes", f"{s3}/runs", tmp_path / "marks"
    marks.mkdir()
    ingest_here(ShapesSource(format="shapes", splits={"train": 23, "val": 7}, image_size_px=64), dataset, shard_mb=0.01)
    undisturbed = train(train_job(dataset, str(tmp_path), epochs=4), "undisturbed")["run"]
    monkeypatch.setattr("yolov7_ray.train.trainer.train_loop", dying_at_every_moment(str(marks)))
    job = train_job(dataset, runs, epochs=4, checkpoint={"every_updates": 1},
                    data={"image_size_px": 64, "cache_dir": str(tmp_path / "cache")},
                    resources={"workers": 1, "max_failures": len(MOMENTS)})
    train(job, "killed")
    assert {path.name for path in marks.iterdir()} == set(MOMENTS)
    run = tmp_path / "killed"
    storage.download_directory(f"{runs}/killed", run)
    assert_same_training(undisturbed, str(run))
    assert {path.name for path in run.glob("checkpoint-*")} == set(Checkpoints(str(run), 1).names()), "none is half"


def test_a_hanging_rank_is_detected_reported_and_replaced(ray_session, shapes_dataset, tmp_path, capfd):
    job = train_job(shapes_dataset, str(tmp_path), epochs=4, checkpoint={"every_updates": 1},
                    resources={"workers": 2, "hang_timeout_s": 4})
    outcome: list = []
    before = set(processes("ray::RayTrainWorker"))
    runner = threading.Thread(target=lambda: outcome.append(train(job, "hanging")), daemon=True)
    runner.start()
    wait_for(tmp_path / "hanging", "checkpoint-epoch-*-step-*/checkpoint.json")
    victim = max(set(processes("ray::RayTrainWorker")) - before)
    os.kill(victim, signal.SIGSTOP)
    runner.join(DEADLINE_S)
    said = capfd.readouterr().out
    assert not runner.is_alive() and outcome, said
    assert "no step for" in said and "it ends itself. Its stacks:" in said and "add_gradients" in said
    assert "resumed after epoch" in said
    assert not Path(f"/proc/{victim}").exists(), "the process that hung is gone"
    assert outcome[0]["best"]["num_images"] == 23, "every sample once"


def test_exploding_weights_roll_back_and_then_fail_with_an_error(ray_session, shapes_dataset, tmp_path, capfd):
    job = train_job(shapes_dataset, str(tmp_path), epochs=30, checkpoint={"every_updates": 1},
                    optimizer={"algorithm": "adamw", "learning_rate": 1e30, "warmup_epochs": 1})
    with pytest.raises(JobError, match=r"loss or gradient was not finite in 10 updates in a row, after 3 returns to an "
                                       r"earlier checkpoint; lower optimizer\.learning_rate"):
        train(job, "exploding")
    said = capfd.readouterr().out
    for factor in ("0.5", "0.25", "0.125"):
        assert f"with {factor} x the learning rate" in said, said
    returns = re.findall(r"epoch (\d+), step (\d+): loss .* in 10 updates in a row; "
                         r"back to checkpoint-epoch-(\d+)(?:-step-(\d+))?", said)
    steps = [(3 * int(epoch) - 3 + int(step), 3 * int(back) + int(within or 0))
             for epoch, step, back, within in returns]
    assert len(steps) == 3 and all(failed - back >= 10 for (_, back), (failed, _) in zip(steps, steps[1:])), \
        f"each return gets ten updates of its own: {steps}"


def test_out_of_memory_is_reported_with_a_remedy(ray_session, shapes_dataset, tmp_path):
    """The first layer's output is 34 GB in one piece; the images that it sees are a tenth of it."""
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") > 30e9:
        pytest.skip("needs a machine with less than 30 GB of memory")
    job = train_job(shapes_dataset, str(tmp_path), batch_size=16, model={"architecture": "yolov7"},
                    data={"image_size_px": 4096}, augment={"mosaic": 0, "mixup": 0, "paste_in": 0})
    with pytest.raises(JobError, match="a worker ran out of memory; lower batch_size"):
        train(job, "too-large")
