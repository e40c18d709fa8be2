"""A cluster that loses and gains nodes: the job continues on the nodes that exist, with the same batches."""

import json
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from nodes import ROOT, RunningCluster, cluster

from yolov7.training.stage_clock import Clock
from yolov7.training.engine import train_one_epoch
from yolov7_ray.jobs.admission import check, demand
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import load_job
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.train.build import build_criterion, build_state
from yolov7_ray.train.loop import EpochBatches
from yolov7_ray.data.reading.dataset import open_splits
from yolov7_ray.evaluate.rank_share import Worker

DEADLINE_S = 900
EPOCHS = 9000
"""More than the test waits for, also at a thousand updates a second."""
STEPS = 3
"""Of an epoch."""
COMPARED = 20


class Submission:
    """A job on a cluster, and what it prints."""

    def __init__(self, running: RunningCluster, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "submit.py", path, "--address", running.address], text=True,
            env=running.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines: list[str] = []
        self._queue: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> "Submission":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait(60)

    def _read(self) -> None:
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def wait_for(self, text: str, timeout_s: float = DEADLINE_S) -> float:
        """Seconds until a line with `text` is printed."""
        start = time.monotonic()
        while True:
            try:
                line = self._queue.get(timeout=max(0, start + timeout_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not within {timeout_s} s: {text}\n{''.join(self.lines)}") from None
            assert line is not None, f"ended without: {text}\n{''.join(self.lines)}"
            self.lines.append(line)
            if text in line:
                return time.monotonic() - start


def job(directory: Path, dataset: str) -> dict:
    return {
        "kind": "train", "dataset": dataset, "storage": str(directory / "runs"), "recipe": "tiny", "epochs": EPOCHS,
        "batch_size": 8, "nominal_batch_size": 8, "precision": "fp32",
        "model": {"architecture": "yolov7-tiny", "depth": 0.5, "width": 0.25}, "data": {"image_size_px": 64},
        "evaluation": {"every_epochs": EPOCHS}, "checkpoint": {"every_epochs": EPOCHS, "every_updates": 5},
        "resources": {"workers": [1, 2]}}


def undisturbed(document: dict) -> list[dict]:
    """The first epochs of the same job, here and without Ray."""
    spec = validate(document)
    worker = Worker(rank=0, world_size=1, device=torch.device("cpu"), loader_processes=0, precision="fp32")
    [train_set] = open_splits(spec.dataset, spec.data, "train")
    state = build_state(spec, train_set, worker.device)
    criterion, batches = build_criterion(spec, state.model, train_set), EpochBatches(spec, train_set, worker, Clock())
    return [train_one_epoch(state, batches(state), criterion) for _ in range(COMPARED)]


@pytest.mark.ray
@pytest.mark.long
def test_nodes_leave_and_join_and_the_job_continues_with_the_same_batches(shapes_dataset, tmp_path, record_property):
    document, path = job(tmp_path, shapes_dataset), tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(document))
    with cluster(1, 1) as running, Submission(running, path) as submission:
        submission.wait_for("training on 2 workers")
        submission.wait_for("epoch 3/")
        running.kill_node(running.nodes[1])
        record_property("seconds after a node left", submission.wait_for("training on 1 worker"))
        submission.wait_for(f"epoch {COMPARED}/")
        running.add_node(1)
        record_property("seconds after a node joined", submission.wait_for("training on 2 workers"))
        text = "".join(submission.lines)
        submission.wait_for("images/s")
    assert "Traceback" not in text and "state-dump" not in text
    assert "was lost (" in text and "resumed after epoch" in text
    saved, resumed = (re.findall(rf"{word} after epoch (\d+)(?:, step (\d+))?", text)[-1]
                      for word in ("saved", "resumed"))
    assert saved == resumed, "nothing is lost when a node joins"

    [results] = (tmp_path / "runs").glob("*/results.json")
    rows = json.loads(results.read_text())["epochs"]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) > COMPARED
    assert all(row["num_images"] == 23 and row["steps"] == 3 for row in rows), "every sample once per epoch"
    for row, expected in zip(rows, undisturbed(document)):
        for term in ("train/box", "train/objectness", "train/classification", "learning_rate"):
            assert row[term] == pytest.approx(expected[term], rel=0.02), f"epoch {row['epoch']}: {term}"


@pytest.mark.ray
@pytest.mark.long
def test_a_reclaimed_node_loses_no_progress(shapes_dataset, tmp_path):
    """Without regular checkpoints within epochs: those that exist were saved for the reclaim, until the node was gone.

    Lost are at most the updates since the last save began, so as many as lay between two saves; whatever the speed.
    """
    document, path = job(tmp_path, shapes_dataset), tmp_path / "train.yaml"
    document["checkpoint"] = {"every_epochs": EPOCHS}
    path.write_text(yaml.safe_dump(document))
    with cluster(1, 1) as running, Submission(running, path) as submission:
        submission.wait_for("training on 2 workers")
        submission.wait_for("epoch 3/")
        running.reclaim_node(deadline_s=15)
        submission.wait_for("a node of this job is being reclaimed; saving until it is gone")
        submission.wait_for("resumed after epoch")
        submission.wait_for("training on 1 worker")
    text = "".join(submission.lines)
    saved, [resumed] = (positions(f"{word} after epoch", text) for word in ("saved", "resumed"))
    trained = STEPS * int(re.findall(r"^epoch (\d+)/", text, re.M)[-1])
    assert len(saved) > 2 and resumed >= saved[-1], "it goes on from the last save"
    between = max(later - earlier for earlier, later in zip(saved, saved[1:]))
    assert trained - resumed <= 2 * between + STEPS, f"saved after updates {saved}, trained to {trained}"


def positions(words: str, text: str) -> list[int]:
    """The numbers of updates in lines such as ``saved after epoch 3, step 2``."""
    return [STEPS * int(epoch) + int(step or 0)
            for epoch, step in re.findall(rf"{words} (\d+)(?:, step (\d+))?", text)]


def test_a_range_requests_its_minimum():
    spec = load_job("kind: train\ndataset: d\nbatch_size: 64\n", ["resources.workers=[2, 8]"])
    assert demand(spec).count == 2 and demand(spec).what == "2 to 8 workers"
    check(spec, {"CPU": 2})
    with pytest.raises(JobError, match=r"asks for 2 CPU and 0 GPU \(2 to 8 workers .*lower resources\.workers"):
        check(spec, {"CPU": 1})


def test_trials_have_a_fixed_number_of_workers():
    with pytest.raises(JobError, match=r"train\.resources\.workers: \[1, 2\] would change within a trial; give one"):
        load_job("kind: tune\ntrain: {kind: train, dataset: d, resources: {workers: [1, 2]}}\n"
                 "search: {seed: {integer: [0, 9]}}\n")
