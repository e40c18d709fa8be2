"""Seconds from the start of submit.py to the first step of a training, by what is waited for; trees take turns.

    python tests/bench/bench_start.py [--runs 3] [--workers 1] [--trees . OTHER_CHECKOUT]

The first line of progress of a step comes only after seconds, so the end is the first checkpoint, of the first update.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "yolov7_ray"))

from conftest import ingest_here  # noqa: E402
from training_jobs import train_job, wait_for  # noqa: E402
from yolov7_ray.data.sources.spec import ShapesSource  # noqa: E402

STAGES = ("starting (train)", "Ray is up", "waiting for 1 worker", "waiting for the dataset",
          "waiting for the first step")


def measure(tree: str, directory: str, job: Path, name: str) -> dict[str, float]:
    """Seconds from the start of submit.py until each stage, as far as this tree prints it, and to the checkpoint."""
    start, found = time.perf_counter(), {}
    process = subprocess.Popen([sys.executable, "submit.py", str(job), "--name", name], cwd=tree, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def read() -> None:
        for line in process.stdout:
            for stage in STAGES:
                if stage in line:
                    found.setdefault(stage, time.perf_counter() - start)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wait_for(Path(directory, "runs", name), "checkpoint-epoch-*/checkpoint.json")
    found["first checkpoint"] = time.perf_counter() - start
    process.wait(600)
    reader.join(10)
    return found


def main() -> None:
    """Print the median of each stage for each tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--trees", nargs="+", default=[str(Path(__file__).parents[2])])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        ingest_here(ShapesSource(format="shapes", splits={"train": 23, "val": 7}, image_size_px=64),
                    f"{directory}/shapes", shard_mb=0.01)
        job, found = Path(directory, "job.yaml"), {tree: [] for tree in options.trees}
        job.write_text(yaml.safe_dump(train_job(
            f"{directory}/shapes", f"{directory}/runs", epochs=1, checkpoint={"every_updates": 1},
            resources={"workers": options.workers})))
        for _ in range(options.runs):
            for tree, runs in found.items():
                runs.append(measure(tree, directory, job, f"run-{len(runs)}-{list(found).index(tree)}"))
                print(tree, {stage: round(seconds, 1) for stage, seconds in runs[-1].items()}, flush=True)
        for tree, runs in found.items():
            print(tree, {stage: round(statistics.median(run[stage] for run in runs), 1) for stage in runs[0]})


if __name__ == "__main__":
    main()
