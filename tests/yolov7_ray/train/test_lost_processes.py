"""kill -9 of each process of a training, by kind: it goes on, or ends in one sentence with the --resume command."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from nodes import cluster
from training_jobs import KINDS, ROOT, Output, of_kind, submit, train_job, wait_for

OF_A_CLUSTER = ("driver", "job supervisor")
"""Kinds that a job submitted to a cluster has below the head."""
ENDS = {"raylet", "GCS"}
"""Kinds without which this machine's Ray cannot go on."""
STAGES = {"before the first step": "training on 1 worker", "in an epoch": "epoch 2/"}
"""When -> the line after which a process is killed."""
BOUND_S = 240
"""From the kill to progress or to the end; on a machine that is busy with other tests."""


def start(directory: Path, dataset: str, **changes) -> Output:
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump(train_job(dataset, str(directory / "runs"), **changes)))
    return Output(submit(str(path), "--name", "run"))


def kill(driver: int, kind: str) -> None:
    victims = of_kind(driver, kind)
    assert victims, f"no {kind} below {driver}"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def assert_brief(text: str) -> None:
    assert "Traceback" not in text and "The actor is dead" not in text and "*** SIG" not in text, text
    assert "(raylet)" not in text, text
    noise = [line for line in text.splitlines() if line.startswith(("(", "[20", "E0", "W0")) and "pid=" in line]
    assert not noise, text


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OF_A_CLUSTER])
def test_a_lost_process(shapes_dataset, tmp_path, kind, stage):
    output = start(tmp_path, shapes_dataset, epochs=12, checkpoint={"every_updates": 1},
                   resources={"workers": [1, 1], "max_failures": 2})
    output.wait_for(STAGES[stage])
    kill(output.process.pid, kind)
    status = output.to_end(BOUND_S)
    assert_brief(output.text)
    if kind in ENDS:
        errors = [line for line in output.lines if line.startswith("error: ")]
        assert status == 2 and len(errors) == 1 and "--resume run" in errors[0], output.text
        assert output.lines[-1] == errors[0], "Ray adds nothing of its own"
    else:
        assert status == 0 and "run: done in" in output.text and "epoch 12/12" in output.text, output.text


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize("kind", OF_A_CLUSTER)
def test_a_lost_process_of_a_job_on_a_cluster(shapes_dataset, tmp_path, kind):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(train_job(shapes_dataset, str(tmp_path / "runs"), epochs=200,
                                             checkpoint={"every_updates": 1})))
    with cluster(2) as running:
        output = Output(subprocess.Popen(
            [sys.executable, ROOT / "submit.py", path, "--name", "run", "--address", running.address],
            env=running.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        output.wait_for("epoch 2/")
        kill(running.nodes[0].pid, kind)
        status = output.to_end(BOUND_S)
        assert_brief(output.text)
        [error] = [line for line in output.lines if line.startswith("error: ")]
        assert status == 2 and "failed on the cluster" in error and error.endswith("--resume run\n"), output.text
        reached = max(int(epoch) for epoch in re.findall(r"epoch (\d+)/", output.text))
        resumed = running.submit(str(path), "--set", f"epochs={reached + 2}", "--resume", "run")
        assert resumed.returncode == 0 and "resumed after epoch" in resumed.stdout, resumed.stdout + resumed.stderr


@pytest.mark.ray
@pytest.mark.long
def test_controller_and_cleaner_lost_together(shapes_dataset, tmp_path):
    """As Ray's memory monitor did it: nobody frees what was reserved, and the next workers waited for ever."""
    output = start(tmp_path, shapes_dataset, epochs=12, checkpoint={"every_updates": 1})
    output.wait_for("epoch 2/")
    kill(output.process.pid, "cleaner")
    kill(output.process.pid, "controller")
    assert output.to_end(BOUND_S) == 0, output.text
    assert_brief(output.text)
    assert "the training's controller was lost; going on from the last checkpoint" in output.text


@pytest.mark.ray
@pytest.mark.long
def test_a_controller_that_is_lost_too_often_ends_in_one_sentence(shapes_dataset, tmp_path):
    output = start(tmp_path, shapes_dataset, epochs=500, resources={"workers": 1, "max_failures": 0},
                   checkpoint={"every_epochs": 500})
    wait_for(tmp_path / "runs", "run/spec.json")
    output.wait_for("epoch 1/")
    kill(output.process.pid, "controller")
    assert output.to_end(BOUND_S) == 2
    assert_brief(output.text)
    [error] = [line for line in output.lines if line.startswith("error: ")]
    assert "controller of the training was lost" in error and "--resume run" in error
