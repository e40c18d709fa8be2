"""Does bf16 learn as fp32 does? BCCD from scratch as its job file says, in both, with several seeds, without Ray.

    python submit.py jobs/ingest-voc.yaml --set source.uri=/data/BCCD --set dataset=datasets/bccd
    python tests/bench/bench_precision.py --dataset datasets/bccd [--seeds 2] [--processes 2] [--set KEY=VALUE …]

Each training is one process on one thread; AP on the test split, evaluated once, in fp32.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from yolov7.training.stage_clock import Clock
from yolov7.training.engine import train_one_epoch
from yolov7_ray.jobs.job_file import load_job
from yolov7_ray.train.build import build_criterion, build_state
from yolov7_ray.train.loop import EpochBatches
from yolov7_ray.data.reading.dataset import open_splits
from yolov7_ray.evaluate.rank_share import evaluate_share, merged, Worker

JOB = Path(__file__).parents[2] / "jobs/train-yolov7-tiny-bccd.yaml"


def outcome(overrides: list[str]) -> tuple[float, float, float]:
    """AP50, AP and CPU seconds of one training."""
    torch.set_num_threads(1)
    spec = load_job(str(JOB), overrides)
    worker = Worker(rank=0, world_size=1, device=torch.device("cpu"), loader_processes=0, precision=spec.precision)
    train_set, test_set = open_splits(spec.dataset, spec.data, "train", "test")
    state = build_state(spec, train_set, worker.device)
    criterion, batches = build_criterion(spec, state.model, train_set), EpochBatches(spec, train_set, worker, Clock())
    start = time.process_time()
    for _ in range(spec.epochs):
        train_one_epoch(state, batches(state), criterion, precision=spec.precision)
    cpu_s = time.process_time() - start
    worker.precision = "fp32"
    found = evaluate_share(state.ema.model, test_set, spec.evaluation, worker, size_px=spec.data.image_size_px,
                           batch_size=16)
    overall = merged(found, worker).to_dict()["overall"]
    return overall["ap50"], overall["ap"], cpu_s


def main() -> None:
    """Print a line for each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="datasets/bccd")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args()
    runs = [(precision, seed) for seed in range(options.seeds) for precision in ("fp32", "bf16")]
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        for (precision, seed), (ap50, ap, cpu_s) in zip(runs, pool.map(outcome, [
                [f"dataset={options.dataset}", f"precision={precision}", f"seed={seed}", *options.overrides]
                for precision, seed in runs])):
            print(f"{precision}, seed {seed}: AP50 {ap50:.3f}, AP {ap:.3f}, {cpu_s:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
