"""A training whose processes are killed at random moments, against the same training undisturbed: bitwise equal?

    python tests/bench/chaos.py [--kills 10] [--epochs 40] [--workers 1] [--seed 0] [--kinds worker,controller]

Each time a kind is drawn of those given (worker, controller, cleaner, progress actor), then a process of it. Every kill
is a SIGKILL at a uniformly random moment after a new checkpoint, so it falls into fetching, stepping, evaluating or
saving as their shares of the time are. Weights, average, optimizer and history are compared.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "yolov7_ray"))

from conftest import ingest_here  # noqa: E402
from training_jobs import assert_same_training, of_kind, train, train_job  # noqa: E402
from yolov7_ray.cluster.local_ray import start_ray  # noqa: E402
from yolov7_ray.data.sources.spec import ShapesSource  # noqa: E402
from yolov7_ray.train.checkpoints import Checkpoints  # noqa: E402

SURVIVED = ("worker", "controller", "cleaner", "progress actor")
"""Kinds whose loss a training survives."""


def kill_at_random(run: str, count: int, kinds: list[str], within_s: float, rng: random.Random,
                   done: threading.Event) -> list[str]:
    """Kill a process of the training ``count`` times, each up to ``within_s`` after new progress; the kinds killed."""
    killed, seen = [], None
    while len(killed) < count and not done.wait(0.05):
        newest = Checkpoints(run, 1).newest()
        if newest == seen or done.wait(rng.uniform(0, within_s)):
            continue
        seen, kind = Checkpoints(run, 1).newest(), rng.choice(kinds)
        running = of_kind(os.getpid(), kind)
        for pid in rng.sample(running, min(1, len(running))):
            os.kill(pid, signal.SIGKILL)
            killed.append(kind)
            print(f"killed {len(killed)}: {kind}, after {seen}", flush=True)
    return killed


def main() -> None:
    """Print how many kills were survived, and fail where the outcome differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--within-s", type=float, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=["worker"], metavar="KIND,KIND")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(SURVIVED):
        parser.error(f"--kinds: {', '.join(unknown)} not among {', '.join(SURVIVED)}")
    with tempfile.TemporaryDirectory() as directory, start_ray():
        dataset, done = f"{directory}/shapes", threading.Event()
        ingest_here(ShapesSource(format="shapes", splits={"train": 23, "val": 7}, image_size_px=64), dataset,
                    shard_mb=0.01)
        job = train_job(dataset, f"{directory}/runs", epochs=options.epochs, checkpoint={"every_updates": 1},
                        resources={"workers": options.workers})
        start = time.perf_counter()
        expected = train(job, "undisturbed")["run"]
        undisturbed_s = time.perf_counter() - start
        killed: list[str] = []
        chaos = threading.Thread(target=lambda: killed.extend(kill_at_random(
            f"{directory}/runs/disturbed", options.kills, options.kinds, options.within_s, random.Random(options.seed),
            done)), daemon=True)
        chaos.start()
        start = time.perf_counter()
        actual = train(job, "disturbed")["run"]
        disturbed_s = time.perf_counter() - start
        done.set()
        chaos.join()
        assert_same_training(expected, actual)
        print(f"{options.epochs} epochs on {options.workers} workers, {len(killed)} kills survived: bitwise equal; "
              f"{disturbed_s:.0f} s against {undisturbed_s:.0f} s undisturbed; {dict(Counter(killed))}")


if __name__ == "__main__":
    main()
