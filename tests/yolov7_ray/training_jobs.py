"""Small train jobs, and what tests that kill them need."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from nodes import descendants

from yolov7.training.state import load_weights
from yolov7_ray.jobs.job_file import validate


DEADLINE_S = 900
ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "controller": "ray::TrainController", "cleaner": "ray::PlacementGroupCleaner",
    "progress actor": "ray::ProgressActor", "worker": "ray::RayTrainWorker", "raylet": "raylet/raylet",
    "GCS": "gcs/gcs_server", "driver": "-m yolov7_ray job.json", "job supervisor": "ray::JobSupervisor",
    "trial": "ray::TrialActor",
}
"""Kind of process of a training -> what its command line holds; "driver" and "job supervisor" are those of a job on a
cluster, "trial" is that of a sweep."""


def train_job(dataset: str, storage_uri: str, **changes) -> dict:
    """A job that trains a very small detector on CPU in a few seconds."""
    return {
        "kind": "train", "dataset": dataset, "storage": storage_uri, "recipe": "tiny", "epochs": 2, "batch_size": 8,
        "nominal_batch_size": 8, "precision": "fp32",
        "model": {"architecture": "yolov7-tiny", "depth": 0.5, "width": 0.25}, "data": {"image_size_px": 64},
        "resources": {"workers": 1, "max_failures": 2},
    } | changes


def train(job: dict, name: str) -> dict:
    from yolov7_ray.train.trainer import train

    return train(validate(job), name)


def submit(*words: str, environment: dict | None = None) -> subprocess.Popen:
    """submit.py in a session of its own, with a Ray of its own; its output is one pipe."""
    inherited = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        inherited.pop(name, None)
    return subprocess.Popen([sys.executable, str(ROOT / "submit.py"), *words], cwd=ROOT, env=inherited,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


class Output:
    """What a process prints, line by line, without blocking it."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process, self.lines = process, []
        self._queue: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def wait_for(self, text: str, timeout_s: float = 900) -> float:
        """Seconds until a line with ``text`` is printed; an empty text: until the end."""
        start = time.monotonic()
        while True:
            try:
                line = self._queue.get(timeout=max(0, start + timeout_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not within {timeout_s} s: {text}\n{self.text}") from None
            if line is None and not text:
                return time.monotonic() - start
            assert line is not None, f"ended without: {text}\n{self.text}"
            self.lines.append(line)
            if text and text in line:
                return time.monotonic() - start

    def to_end(self, timeout_s: float = 900) -> int:
        """The exit status, when all has been read."""
        self.wait_for("", timeout_s)
        return self.process.wait(60)

    @property
    def text(self) -> str:
        return "".join(self.lines)


def wait_for(directory: Path, pattern: str) -> None:
    """Until a file that matches ``pattern`` exists below ``directory``."""
    deadline = time.monotonic() + DEADLINE_S
    while not any(directory.glob(pattern)):
        assert time.monotonic() < deadline, f"{directory}/{pattern} did not appear within {DEADLINE_S} s"
        time.sleep(0.02)


def processes(name: str) -> list[int]:
    """Pids of the processes whose command line holds ``name``."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if name in directory.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(directory.name))
        except OSError:
            continue
    return found


def of_kind(driver: int, kind: str) -> list[int]:
    """Processes of one job alone: the descendants of its driver."""
    return sorted(set(processes(KINDS[kind])) & set(descendants(driver)))


def final_state(run: str) -> tuple[dict, dict, dict]:
    """Weights, average and counters of a run's last checkpoint."""
    last = Path(run, json.loads(Path(run, "results.json").read_text())["last_checkpoint"])
    return (load_weights(last / "model.safetensors")[0], load_weights(last / "ema.safetensors")[0],
            torch.load(last / "state.pt", weights_only=True))


def assert_same_training(one: str, other: str) -> None:
    """Bitwise equal weights, averages, optimizer and counters; every epoch once."""
    for a, b in zip(final_state(one)[:2], final_state(other)[:2]):
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    counters, others = final_state(one)[2], final_state(other)[2]
    assert counters["ema_updates"] == others["ema_updates"]
    for a, b in zip(counters["optimizer"]["state"].values(), others["optimizer"]["state"].values()):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])
    history, other_history = counters["history"], others["history"]
    assert [row["epoch"] for row in history] == [row["epoch"] for row in other_history]
    for row, other_row in zip(history, other_history):
        assert {k: row.get(k) for k in ("train/box", "ap", "learning_rate")} == \
               {k: other_row.get(k) for k in ("train/box", "ap", "learning_rate")}
