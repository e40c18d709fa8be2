"""Seconds from the end of a trial to the first step of the next one, in a sweep of one trial at a time.

    python tests/bench/bench_trials.py [--trials 6] [--width 0.25] [--size-px 64] [--tree OTHER_CHECKOUT]

A trial ends when the checkpoint of its last epoch is in storage; its report is still to be written then. The next one
has begun when its first update is in storage. OTHER_CHECKOUT may be one whose sweeps have `trials` instead of `budget`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "yolov7_ray"))

from conftest import ingest_here  # noqa: E402
from training_jobs import ROOT, train_job  # noqa: E402
from yolov7_ray.data.sources.spec import ShapesSource  # noqa: E402

EPOCHS = 2


def watch(process: subprocess.Popen, trials: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Trial -> when its first checkpoint appeared, and when that of its last epoch did."""
    first, last = {}, {}
    while process.poll() is None:
        now = time.time()
        for record in trials.glob("*/checkpoint-epoch-*/checkpoint.json"):
            trial = record.parent.parent.name
            first.setdefault(trial, now)
            if record.parent.name == f"checkpoint-epoch-{EPOCHS:04d}":
                last.setdefault(trial, now)
        time.sleep(0.02)
    return first, last


def main() -> None:
    """Print the time between each two trials, and the median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--tree", type=Path, default=ROOT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        ingest_here(ShapesSource(format="shapes", splits={"train": 23, "val": 7}, image_size_px=64),
                    f"{directory}/shapes", shard_mb=0.01)
        train = train_job(f"{directory}/shapes", "runs", epochs=EPOCHS, checkpoint={"every_updates": 1})
        train["model"]["width"], train["data"]["image_size_px"] = options.width, options.size_px
        job = {"kind": "tune", "train": train, "storage": f"{directory}/runs", "max_concurrent_trials": 1,
               "search": {"optimizer.learning_rate": {"loguniform": [0.001, 0.1]}}}
        budget = {"algorithm": "random", "budget": {"trials": options.trials}, "keep_checkpoints": "all"}
        if not (options.tree / "platform/yolov7_ray/tune/scheduler.py").exists():
            budget = {"trials": options.trials, "grace_epochs": EPOCHS}
        Path(directory, "tune.yaml").write_text(yaml.safe_dump(job | budget))
        began = time.time()
        with open(Path(directory, "log"), "w") as log:
            process = subprocess.Popen([sys.executable, "submit.py", f"{directory}/tune.yaml", "--name", "sweep"],
                                       cwd=options.tree, stdout=log, stderr=subprocess.STDOUT)
            first, last = watch(process, Path(directory, "runs/sweep/trials"))
        if process.returncode or len(last) < options.trials:
            raise SystemExit(Path(directory, "log").read_text())
        order = sorted(first, key=first.get)
        gaps = [first[after] - last[before] for before, after in zip(order, order[1:])]
        print(f"first step of the first trial after {min(first.values()) - began:.1f} s; from the end of a trial to the "
              f"first step of the next {', '.join(f'{gap:.1f}' for gap in gaps)} s, median {statistics.median(gaps):.1f} s;"
              f" {time.time() - began:.0f} s in all")


if __name__ == "__main__":
    main()
