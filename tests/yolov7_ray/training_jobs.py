"""Small train jobs, and what tests that kill them need."""

import json
import time
from pathlib import Path

import torch

from yolov7.training.state import load_weights
from yolov7_ray.jobs.job_file import validate


DEADLINE_S = 900


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
        assert {k: row[k] for k in ("train/box", "ap", "learning_rate")} == \
               {k: other_row[k] for k in ("train/box", "ap", "learning_rate")}
