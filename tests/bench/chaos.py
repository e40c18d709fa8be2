"""A training whose processes are killed at random moments, against the same training undisturbed: bitwise equal?

    python tests/bench/chaos.py [--kills 50] [--epochs 80] [--workers 1] [--seed 0] [--kinds worker,driver] [--cluster]
    python tests/bench/chaos.py --sweep 4 [--kills 10] [--epochs 8] …

Both are started by submit.py, with a Ray of their own, or with --cluster on a head here. Each time a kind is drawn,
then a process of it, which gets a SIGKILL at a uniformly random moment after a new checkpoint: while it starts, fetches,
steps, evaluates or saves, as their shares of the time are. A job that ends for it is submitted again with --resume.
Weights, average, optimizer and history are compared. With --sweep of so many trials, one at a time: those of each trial
whose checkpoints stay, and the tables.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "yolov7_ray"))

from conftest import ingest_here  # noqa: E402
from nodes import cluster  # noqa: E402
from training_jobs import KINDS, ROOT, Output, assert_same_training, of_kind, submit, train_job  # noqa: E402
from yolov7_ray.data.sources.spec import ShapesSource  # noqa: E402
from yolov7_ray.train.checkpoints import Checkpoints  # noqa: E402

HERE = tuple(kind for kind in KINDS if kind not in ("job supervisor", "trial"))
"""Kinds of process of a job with a Ray of its own; the driver is submit.py."""
ON_A_CLUSTER = tuple(kind for kind in KINDS if kind not in ("raylet", "GCS", "trial"))
"""Those of a job on a cluster, whose head stays."""
OF_A_SWEEP = {"driver", "trial", "progress actor", "raylet", "GCS"}
"""Those of a sweep with a Ray of its own."""
ATTEMPT_S = 600
"""How long one submission may last."""


class Chaos(threading.Thread):
    """Kills ``count`` processes of a run, each up to ``within_s`` after new ``progress()``."""

    def __init__(self, progress: Callable[[], object], count: int, kinds: list[str], within_s: float,
                 seed: int) -> None:
        super().__init__(daemon=True)
        self.progress, self.count, self.kinds, self.within_s = progress, count, kinds, within_s
        self.random, self.done, self.killed = random.Random(seed), threading.Event(), []
        self.victims: Callable[[str], list[int]] = lambda kind: []
        """The present processes of a kind."""

    def run(self) -> None:
        seen = None
        while len(self.killed) < self.count and not self.done.wait(0.05):
            if self.progress() == seen or self.done.wait(self.random.uniform(0, self.within_s)):
                continue
            newest, kind = self.progress(), self.random.choice(self.kinds)
            running = self.victims(kind)
            for pid in self.random.sample(running, min(1, len(running))):
                os.kill(pid, signal.SIGKILL)
                self.killed.append(kind)
                seen = newest
                print(f"killed {len(self.killed)}: {kind}, after {newest}", flush=True)


def to_the_end(start: Callable[..., subprocess.Popen], run: Path, chaos: Chaos | None = None,
               root: int | None = None) -> list[str]:
    """Submit the job until it is done; the last line of each submission that ended before.

    ``root``: the process below which the job's own are, by default that of the submission, its driver.
    """
    ends = []
    while True:
        output = Output(start("--resume" if run.exists() else "--name", run.name))
        if chaos is not None:
            pid = output.process.pid
            chaos.victims = lambda kind: [pid] if kind == "driver" and root is None else of_kind(root or pid, kind)
        if output.to_end(ATTEMPT_S) == 0:
            return ends
        ends.append(output.lines[-1].strip() if output.lines else "")
        print(f"  ended: {ends[-1]}", flush=True)
        if "Traceback" in output.text or not run.exists() and len(ends) > 3:
            raise SystemExit(output.text)


def newest_of_all(trials: Path) -> str | None:
    """The newest checkpoint of any trial."""
    found = [record for record in trials.glob("*/checkpoint-*/checkpoint.json")]
    times = {}
    for record in found:
        with suppress(FileNotFoundError):
            times[record] = record.stat().st_mtime_ns
    return str(max(times, key=times.get).parent.relative_to(trials)) if times else None


def assert_same_sweep(one: Path, other: Path) -> None:
    """Equal tables but for the speed, and bitwise equal trainings where checkpoints stay."""
    keys = ("trial", "values", "status", "reason", "epoch", "figures", "ap", "cost", "spent", "error")
    tables = [json.loads((run / "trials.json").read_text()) for run in (one, other)]
    rows, others = ([{key: row[key] for key in keys} for row in table] for table in tables)
    assert rows == others, f"{rows}\n{others}"
    for row, other_row in zip(*tables):
        assert (row["checkpoint"] is None) == (other_row["checkpoint"] is None)
        if row["checkpoint"]:
            assert_same_training(row["run"], other_row["run"])


def main() -> None:
    """Print how many kills were survived, and fail where the outcome differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--within-s", type=float, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", type=lambda text: text.split(","), metavar="KIND,KIND", help="default: all")
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--sweep", type=int, metavar="TRIALS")
    options = parser.parse_args()
    known = OF_A_SWEEP if options.sweep else ON_A_CLUSTER if options.cluster else HERE
    if unknown := set(options.kinds or ()) - set(known):
        parser.error(f"--kinds: {', '.join(unknown)} not among {', '.join(known)}")
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        runs, job, root = Path(directory, "runs"), Path(directory, "job.yaml"), None
        ingest_here(ShapesSource(format="shapes", splits={"train": 23, "val": 7}, image_size_px=64),
                    f"{directory}/shapes", shard_mb=0.01)
        train = train_job(f"{directory}/shapes", str(runs), epochs=options.epochs, checkpoint={"every_updates": 1},
                          resources={"workers": options.workers})
        sweep = {"kind": "tune", "train": train, "storage": str(runs), "max_concurrent_trials": 1, "reduction_factor": 2,
                 "budget": {"trials": options.sweep or 1, "share": 0.6}, "search": {
                     "model.width": {"choice": [0.25, 0.5]}, "optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]}}}
        job.write_text(yaml.safe_dump(sweep if options.sweep else train))

        def start(*words: str) -> subprocess.Popen:
            return submit(str(job), *words)

        if options.cluster:
            running = stack.enter_context(cluster(options.workers + 1))
            root = running.nodes[0].pid

            def start(*words: str) -> subprocess.Popen:  # noqa: F811
                return subprocess.Popen(
                    [sys.executable, ROOT / "submit.py", job, *words, "--address", running.address], text=True,
                    env=running.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

        began = time.perf_counter()
        to_the_end(start, runs / "undisturbed")
        undisturbed_s = time.perf_counter() - began
        run = runs / "disturbed"
        progress = partial(newest_of_all, run / "trials") if options.sweep else Checkpoints(str(run), 1).newest
        chaos = Chaos(progress, options.kills, options.kinds or sorted(known), options.within_s, options.seed)
        chaos.start()
        began = time.perf_counter()
        ends = to_the_end(start, runs / "disturbed", chaos, root)
        disturbed_s = time.perf_counter() - began
        chaos.done.set()
        chaos.join()
        if options.sweep:
            assert_same_sweep(runs / "undisturbed", run)
        else:
            assert_same_training(str(runs / "undisturbed"), str(run))
        assert len(chaos.killed) >= options.kills, "it ended before all were killed: give more epochs"
        what = f"{options.sweep} trials of " if options.sweep else ""
        print(f"{what}{options.epochs} epochs on {options.workers} workers, {len(chaos.killed)} kills survived: bitwise equal; "
              f"{disturbed_s:.0f} s against {undisturbed_s:.0f} s undisturbed, {len(ends)} times resumed by hand; "
              f"{dict(Counter(chaos.killed))}")


if __name__ == "__main__":
    main()
