"""A real search at a share of the compute against the full sweep of the same trials, whose curves were recorded.

    python tests/bench/bench_sweep.py [--trials 24] [--share 0.25]

The space and the data are those of `record_curves.py shapes`, the search runs by submit.py with a Ray of its own, one
trial at a time. Hypervolume of (AP, GFLOPs) of the fully trained trials as a part of that of all that were proposed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "yolov7_ray")]

from conftest import ingest_here  # noqa: E402
from record_curves import EPOCHS, SPACE, TRAIN_IMAGES, VAL_IMAGES, job  # noqa: E402
from yolov7_ray.data.sources.spec import SHAPE_CLASSES, ShapesSource  # noqa: E402
from yolov7_ray.tune.search.fronts import hypervolume  # noqa: E402

PATHS = {"depth": "model.depth", "width": "model.width", "size_px": "data.image_size_px",
         "learning_rate": "optimizer.learning_rate"}
DIRECTIONS = ("max", "min")


def search(directory: Path, trials: int, share: float) -> list[dict]:
    """Run the search; its rows."""
    dataset = str(directory / "dataset")
    ingest_here(ShapesSource(format="shapes", splits={"train": TRAIN_IMAGES, "val": VAL_IMAGES}, image_size_px=128), dataset,
                classes={"shape": list(SHAPE_CLASSES)})
    train = job(dataset, {name: values[0] for name, values in SPACE.items()}) | {"storage": "runs"}
    sweep = {"kind": "tune", "train": train, "storage": str(directory), "max_concurrent_trials": 1, "start_with": [],
             "search": {PATHS[name]: {"choice": values} for name, values in SPACE.items()},
             "objectives": {"ap": "max", "gflops": "min"}, "budget": {"trials": trials, "share": share}}
    file = directory / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep))
    subprocess.run([sys.executable, HERE.parents[1] / "submit.py", file, "--name", "sweep"], check=True, timeout=7200)
    return json.loads((directory / "sweep/trials.json").read_text())


def main() -> None:
    """Print the share of hypervolume and of compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--share", type=float, default=0.25)
    options = parser.parse_args()
    known = {tuple(trial["values"].values()): trial for trial in json.loads((HERE / "curves/shapes.json").read_text())["trials"]}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sweep-") as directory:
        rows = search(Path(directory), options.trials, options.share)
    seconds = time.monotonic() - began
    recorded = [known[tuple(row["values"][path] for path in PATHS.values())] for row in rows]
    full = [(trial["ap"][-1], trial["gflops"]) for trial in recorded]
    trained = [(row["ap"], trial["gflops"]) for row, trial in zip(rows, recorded) if row["epochs"] == EPOCHS]
    reference = (0.0, 1.1 * max(gflops for _, gflops in full))
    spent = sum(row["epochs"] * trial["gflops"] for row, trial in zip(rows, recorded))
    kept, whole = (hypervolume(points, reference, DIRECTIONS) for points in (trained, full))
    print(f"{len(rows)} trials, {len(trained)} trained in full, {spent / sum(g for _, g in full) / EPOCHS:.3f} of the compute: "
          f"{kept / whole:.3f} of the hypervolume, best AP {max(ap for ap, _ in trained):.3f} of "
          f"{max(ap for ap, _ in full):.3f}; {seconds:.0f} s")
    for row, trial in zip(rows, recorded):
        if row["epochs"] == EPOCHS:
            print(f"  {row['values']}: AP {row['ap']:.3f}, recorded {trial['ap'][-1]:.3f}")


if __name__ == "__main__":
    main()
