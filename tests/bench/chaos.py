"""A training whose processes are killed at random moments, against the same training undisturbed: bitwise equal?

    python tests/bench/chaos.py [--kills 50] [--epochs 80] [--workers 1] [--seed 0] [--kinds worker,driver] [--cluster]

Both are started by submit.py, with a Ray of their own, or with --cluster on a head here. Each time a kind is drawn,
then a process of it, which gets a SIGKILL at a uniformly random moment after a new checkpoint: while it starts, fetches,
steps, evaluates or saves, as their shares of the time are. A job that ends for it is submitted again with --resume.
Weights, average, optimizer and history are compared.
"""

import argparse
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
from contextlib import ExitStack
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "yolov7_ray"))

from conftest import ingest_here  # noqa: E402
from nodes import cluster  # noqa: E402
from training_jobs import KINDS, ROOT, Output, assert_same_training, of_kind, submit, train_job  # noqa: E402
from yolov7_ray.data.sources.spec import ShapesSource  # noqa: E402
from yolov7_ray.train.checkpoints import Checkpoints  # noqa: E402

HERE = tuple(kind for kind in KINDS if kind != "job supervisor")
"""Kinds of process of a job with a Ray of its own; the driver is submit.py."""
ON_A_CLUSTER = tuple(kind for kind in KINDS if kind not in ("raylet", "GCS"))
"""Those of a job on a cluster, whose head stays."""
ATTEMPT_S = 600
"""How long one submission may last."""


class Chaos(threading.Thread):
    """Kills ``count`` processes of a run, each up to ``within_s`` after new progress."""

    def __init__(self, run: str, count: int, kinds: list[str], within_s: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.run_uri, self.count, self.kinds, self.within_s = run, count, kinds, within_s
        self.random, self.done, self.killed = random.Random(seed), threading.Event(), []
        self.victims: Callable[[str], list[int]] = lambda kind: []
        """The present processes of a kind."""

    def run(self) -> None:
        seen = None
        while len(self.killed) < self.count and not self.done.wait(0.05):
            if Checkpoints(self.run_uri, 1).newest() == seen or self.done.wait(self.random.uniform(0, self.within_s)):
                continue
            newest, kind = Checkpoints(self.run_uri, 1).newest(), self.random.choice(self.kinds)
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
    options = parser.parse_args()
    known = ON_A_CLUSTER if options.cluster else HERE
    if unknown := set(options.kinds or ()) - set(known):
        parser.error(f"--kinds: {', '.join(unknown)} not among {', '.join(known)}")
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        runs, job, root = Path(directory, "runs"), Path(directory, "job.yaml"), None
        ingest_here(ShapesSource(format="shapes", splits={"train": 23, "val": 7}, image_size_px=64),
                    f"{directory}/shapes", shard_mb=0.01)
        job.write_text(yaml.safe_dump(train_job(
            f"{directory}/shapes", str(runs), epochs=options.epochs, checkpoint={"every_updates": 1},
            resources={"workers": options.workers})))

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
        chaos = Chaos(str(runs / "disturbed"), options.kills, options.kinds or list(known), options.within_s,
                      options.seed)
        chaos.start()
        began = time.perf_counter()
        ends = to_the_end(start, runs / "disturbed", chaos, root)
        disturbed_s = time.perf_counter() - began
        chaos.done.set()
        chaos.join()
        assert_same_training(str(runs / "undisturbed"), str(runs / "disturbed"))
        print(f"{options.epochs} epochs on {options.workers} workers, {len(chaos.killed)} kills survived: bitwise equal; "
              f"{disturbed_s:.0f} s against {undisturbed_s:.0f} s undisturbed, {len(ends)} times resumed by hand; "
              f"{dict(Counter(chaos.killed))}")


if __name__ == "__main__":
    main()
