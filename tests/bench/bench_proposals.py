"""How good the points are that each algorithm of a search proposes, on a synthetic detector.

    python tests/bench/bench_proposals.py [--seeds 20]

AP rises with depth, width and image size and falls with the distance of the rate from 0.01, with noise of 0.01; every
trial is trained in full. Printed: median and quartiles over the seeds of the hypervolume of (AP, GFLOPs) above the
point (0, 5), and of the best AP where it is the only objective, both without noise.
"""

import argparse
import math
import random

import numpy as np

from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.search.algorithms import DRAW
from yolov7_ray.tune.search.fronts import hypervolume
from yolov7_ray.tune.search.proposals import Proposer
from yolov7_ray.tune.search.space import Values

SEARCH = {"model.depth": {"choice": [0.33, 0.5, 0.75, 1.0]}, "model.width": {"quantized": [0.25, 1.0, 0.125]},
          "data.image_size_px": {"choice": [160, 224, 288, 352]},
          "optimizer.learning_rate": {"loguniform": [1e-4, 1e-1]}}
NOISE = 0.01


def accuracy(values: Values) -> float:
    """AP of a fully trained model."""
    capacity = values["model.depth"] * values["model.width"] ** 2
    from_size = 1 - math.exp(-values["data.image_size_px"] / 200)
    from_rate = math.exp(-0.5 * ((math.log10(values["optimizer.learning_rate"]) + 2) / 0.5) ** 2)
    return 0.6 * (1 - math.exp(-1.5 * capacity ** 0.35)) * from_size * from_rate


def gflops(values: Values) -> float:
    """About those of yolov7-tiny."""
    return (13 * (0.3 + 0.7 * values["model.depth"]) * values["model.width"] ** 2
            * (values["data.image_size_px"] / 640) ** 2)


def reached(algorithm: str, objectives: dict[str, str], num_trials: int, seed: int) -> float:
    """Hypervolume, or best AP, of one search."""
    spec = validate({"kind": "tune", "train": {"kind": "train", "dataset": "d", "model": {"architecture": "yolov7-tiny"}},
                     "search": SEARCH, "algorithm": algorithm, "seed": seed, "objectives": objectives,
                     "start_with": []})
    proposer, rng, points = Proposer(spec), random.Random(seed), []
    for trial in map(str, range(num_trials)):
        values = proposer.suggest(trial)
        proposer.trials[trial].costs = {"gflops": gflops(values)}
        proposer.observe(trial, 9, {"ap": max(0.0, accuracy(values) + rng.gauss(0, NOISE))})
        points.append((accuracy(values), gflops(values)))
    return max(ap for ap, _ in points) if len(objectives) == 1 else hypervolume(points, (0, 5), ("max", "min"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = range(parser.parse_args().seeds)
    for objectives in ({"ap": "max", "gflops": "min"}, {"ap": "max"}):
        for num_trials in (24, 64):
            for algorithm in DRAW:
                if algorithm != "grid":
                    found = [reached(algorithm, objectives, num_trials, seed) for seed in seeds]
                    low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
                    print(f"{' and '.join(objectives):<14} {num_trials} trials  {algorithm:<8} median {middle:.3f}  "
                          f"quartiles {low:.3f} {high:.3f}", flush=True)


if __name__ == "__main__":
    main()
