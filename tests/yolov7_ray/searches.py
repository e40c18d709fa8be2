"""Recorded searches, as they lie in storage, for tests of what is shown of them."""

import math
import random

from training_jobs import train_job

from yolov7_ray import storage
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.report.view import SearchView

RUNGS = (1, 3, 9)


def tune_job(dataset: str = "data", storage_uri: str = "runs", **changes) -> dict:
    """A search over two sizes of a model and its learning rate."""
    return {"kind": "tune", "train": train_job(dataset, "runs", epochs=2), "storage": storage_uri,
            "budget": {"trials": 3}, "search": {"model.width": {"choice": [0.25, 0.5]},
                                                "optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]}}} | changes


def row(trial: str, status: str = "trained", epoch: int = 2, ap: float | None = 0.25, gflops: float = 1.5,
        **changes) -> dict:
    """A row of trials.json."""
    return {"trial": trial, "values": {"model.width": 0.25, "optimizer.learning_rate": 0.01}, "status": status,
            "reason": None, "epoch": epoch, "epochs": epoch, "rung": epoch, "figures": {"ap": ap, "gflops": gflops},
            "cost": gflops, "spent": gflops * epoch, "run": f"runs/s/trials/{trial}", "error": None,
            "checkpoint": f"runs/s/trials/{trial}/checkpoint-epoch-{epoch:04d}" if epoch else None} | changes


def record_search(run: str, num_trials: int = 24, **changes) -> SearchView:
    """A search of made-up trials, whose curves, in ``run``, rise to what depends on size and rate."""
    draw = random.Random(0)
    spec = validate({"kind": "tune", "storage": "runs", "name": "search-shapes", "budget": {"trials": 32},
                     "train": train_job("datasets/shapes", "runs", epochs=RUNGS[-1]),
                     "search": {"model.depth": {"choice": [0.33, 0.5, 1.0]}, "model.width": {"quantized": [0.25, 1, 0.25]},
                                "optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]},
                                "optimizer.algorithm": {"choice": ["sgd", "adamw"]}}} | changes)
    rows, history, spent = [], [], 0.0
    for index in range(num_trials):
        depth, width = draw.choice([0.33, 0.5, 1.0]), draw.choice([0.25, 0.5, 0.75, 1.0])
        rate, algorithm = 10 ** draw.uniform(-3, -1), draw.choice(["sgd", "adamw"])
        gflops = 4 * depth * width ** 2
        end = 0.6 * (1 - math.exp(-1.5 - gflops)) - 0.06 * math.log10(rate / 0.012) ** 2 + draw.gauss(0, 0.01)
        epoch = 0 if index % 11 == 10 else RUNGS[draw.choice([0, 0, 0, 1, 1, 2])]
        status = {0: "rejected", RUNGS[-1]: "trained"}.get(epoch, "paused")
        status = "running" if index == num_trials - 1 else "failed" if index % 13 == 12 else status
        trial = f"{draw.getrandbits(20):05x}"
        curve = [{"epoch": done, "ap": round(end * (1 - math.exp(-done / 2.5)) + draw.gauss(0, 0.004), 4)}
                 for done in range(1, epoch + 1)]
        spent += gflops * epoch
        history += [[spent - gflops * (epoch - rung), trial, rung] for rung in RUNGS if rung <= epoch]
        storage.write_json(storage.join(run, "trials", trial, "results.json"), {"epochs": curve})
        rows.append(row(trial, status, epoch, curve[-1]["ap"] if curve else None, round(gflops, 4), values={
            "model.depth": depth, "model.width": width, "optimizer.learning_rate": round(rate, 6),
            "optimizer.algorithm": algorithm}, run=storage.join(run, "trials", trial), reason={
                "rejected": "parameters 4.1M is not <= 3e+06",
                "paused": "AP 0.12 is dominated by 3 others at epoch 3"}.get(status),
            error="Traceback\nRuntimeError: CUDA out of memory" if status == "failed" else None,
            spread={"ap": 0.012} if index % 5 == 0 else None) | {})
    for found in rows:
        if found["spread"] is None:
            del found["spread"]
    return SearchView(spec, rows, 600.0, run=run, history=history)
