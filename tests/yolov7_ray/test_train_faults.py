"""Faults of a training on a real local Ray: a rank that hangs, memory that runs out, weights that explode."""

import os
import signal
import threading
from pathlib import Path

import pytest
from test_train import DEADLINE_S, processes, train, train_job, wait_for

from yolov7_ray.errors import JobError

pytestmark = [pytest.mark.ray, pytest.mark.long]


def test_a_rank_that_hangs_is_found_told_and_replaced(ray_session, shapes_dataset, tmp_path, capfd):
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


def test_weights_that_explode_go_back_and_are_given_up_with_a_report(ray_session, shapes_dataset, tmp_path, capfd):
    job = train_job(shapes_dataset, str(tmp_path), epochs=30, checkpoint={"every_updates": 1},
                    optimizer={"algorithm": "adamw", "learning_rate": 1e30, "warmup_epochs": 1})
    with pytest.raises(JobError, match=r"loss or gradient was not finite in 10 updates in a row, after 3 returns to an "
                                       r"earlier checkpoint; lower optimizer\.learning_rate"):
        train(job, "exploding")
    said = capfd.readouterr().out
    for factor in ("0.5", "0.25", "0.125"):
        assert f"with {factor} x the learning rate" in said, said


def test_memory_that_runs_out_is_said_with_what_to_change(ray_session, shapes_dataset, tmp_path):
    """The first layer's output is 34 GB in one piece; the images that it sees are a tenth of it."""
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") > 30e9:
        pytest.skip("needs a machine with less than 30 GB of memory")
    job = train_job(shapes_dataset, str(tmp_path), batch_size=16, model={"architecture": "yolov7"},
                    data={"image_size_px": 4096}, augment={"mosaic": 0, "mixup": 0, "paste_in": 0})
    with pytest.raises(JobError, match="a worker ran out of memory; lower batch_size"):
        train(job, "too-large")
