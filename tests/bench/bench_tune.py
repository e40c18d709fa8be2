"""How much of a full sweep's front a search keeps at a share of its compute, by algorithm, on recorded curves.

    python tests/bench/bench_tune.py [--curves FILE …] [--orders 200] [--trials 64 24] [--workers 1] [--share 0.25]
                                     [--algorithms promotion …] [--objective gflops] [--processes 1]

Learning curves are replayed through each algorithm, in 200 orders drawn by the seed; a step takes as long as its
epochs cost. Of the trials that an algorithm has trained to their end, the hypervolume in (AP, objective) is divided
by that of the full sweep; reference point: AP 0, and 1.1 times the largest objective of the sweep. Regret is what the
best AP lacks of the sweep's best, as a part of it. Printed: quartiles over the orders, compute as a part of the full
sweep's, its maximum over the orders, and the time in units of that of one worker for the full sweep.

--curves: JSON files, by default those beside this file and three synthetic sets. Format:

    {"name": "shapes", "epochs": 20, "trials": [
        {"values": {"depth": 0.5, …},         what the search set; numbers or text
         "cost": 3.7,                         of one epoch, in any unit, e.g. GFLOPs x images
         "gflops": 0.058, "parameters": 1204192, "latency_ms": 15.0,     known before training
         "ap": [… 20 figures …], "ap50": [… 20 figures …]}, …]}          after each epoch

Of a file with fewer trials than --trials all are the sweep; of one with more each order draws so many.
"""

import argparse
import heapq
import itertools
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from yolov7_ray.tune.search.fronts import hypervolume
from yolov7_ray.tune.search.promotion import Promotion, rungs

DIRECTIONS = ("max", "min")
REFERENCE = 1.1
Curve = dict


def load(path: Path) -> list[Curve]:
    """The trials of a file; ValueError where a curve has not as many epochs as the file says."""
    document = json.loads(path.read_text())
    for number, curve in enumerate(document["trials"]):
        if len(curve["ap"]) != document["epochs"]:
            raise ValueError(f"{path}: trial {number}: {len(curve['ap'])} epochs; the file says {document['epochs']}")
    return document["trials"]


def synthetic(kind: str, num: int = 128, epochs: int = 20, seed: int = 1) -> list[Curve]:
    """Curves ``final * (1 - exp(-(t / tau)^1.5))`` with noise, of depths x widths x sizes x rates.

    scaling: larger models learn slower and end higher, rates matter little; rates: they matter much, and those that
    learn fast do not end higher; crossing: what learns slowly ends higher.
    """
    rng, found, t = np.random.default_rng(seed), [], np.arange(1, epochs + 1)
    for _ in range(num):
        depth, width = rng.choice([0.33, 0.5, 0.75, 1.0]), rng.choice(np.linspace(0.25, 1, 7))
        size, rate = rng.choice([160, 224, 288, 352]), rng.normal()
        gflops = 6.0 * (0.4 + 0.6 * depth) * width ** 2 * (size / 352) ** 2 + 0.1
        if kind == "scaling":
            final = 0.5 * (1 - 0.44 * (gflops / 6) ** -0.18) * np.exp(-0.08 * rate ** 2) + rng.normal() * 0.008
            tau = 5 + 3 * (gflops / 6) ** 0.5 - rate
        elif kind == "rates":
            final = 0.45 * (gflops / 6) ** 0.12 * np.exp(-0.35 * rate ** 2) + rng.normal() * 0.01
            tau = 4 * np.exp(-0.3 * rate)
        else:
            slow = rng.uniform()
            final, tau = 0.25 * (gflops / 6) ** 0.2 + 0.15 * slow + rng.normal() * 0.01, 2 + 8 * slow
            rate = slow
        final, tau = max(final, 0.01), max(tau, 1)
        ap = final * (1 - np.exp(-(t / tau) ** 1.5)) / (1 - np.exp(-(epochs / tau) ** 1.5))
        ap = ap * (1 + rng.normal(size=epochs) * 0.05 * (1 - t / epochs)) + rng.normal(size=epochs) * 0.003
        values = {"depth": float(depth), "width": float(width), "size_px": int(size), "rate": float(rate)}
        found.append({"values": values, "cost": gflops, "gflops": gflops, "ap": np.clip(ap, 0, 1).tolist()})
    return found


def replay(pool: dict[str, Curve], algorithm: object, workers: int) -> tuple[list[str], float, float]:
    """Run ``algorithm`` on trials that begin in the pool's order; those fully trained, compute spent, time taken."""
    waiting, at, running, events = list(pool), {}, {}, []
    now, spent, number = 0.0, 0.0, itertools.count()
    epochs = len(next(iter(pool.values()))["ap"])
    choose = getattr(algorithm, "choose", lambda waiting: waiting[0])
    while True:
        while len(running) < workers and (step := algorithm.next(dict(running), bool(waiting))) is not None:
            trial = step.trial if step.trial is not None else choose(waiting)
            if step.trial is None:
                waiting.remove(trial)
            amount = pool[trial]["cost"] * (step.to_epoch - at.setdefault(trial, 0))
            running[trial] = step.to_epoch
            heapq.heappush(events, (now + amount, next(number), trial))
            spent += amount
        if not events:
            return [trial for trial, epoch in at.items() if epoch == epochs], spent, now
        now, _, trial = heapq.heappop(events)
        curve, epoch = pool[trial], running.pop(trial)
        at[trial] = epoch
        figures = {name: value[epoch - 1] if isinstance(value, list) else value for name, value in curve.items()
                   if name not in ("values", "cost")}
        algorithm.record(trial, epoch, figures, curve["cost"], curve.get("values"))


def figures_of(pool: dict[str, Curve], trained: Sequence[str], spent: float, now: float, objective: str) -> tuple:
    """Hypervolume and regret against the full sweep, compute and time as parts of its, number fully trained."""
    points = {trial: (curve["ap"][-1], curve[objective]) for trial, curve in pool.items()}
    reference = (0.0, REFERENCE * max(cost for _, cost in points.values()))
    whole = hypervolume(list(points.values()), reference, DIRECTIONS)
    kept = hypervolume([points[trial] for trial in trained], reference, DIRECTIONS)
    best = max(ap for ap, _ in points.values())
    epochs = len(next(iter(pool.values()))["ap"])
    full = sum(curve["cost"] for curve in pool.values()) * epochs
    return kept / whole, 1 - max((points[trial][0] for trial in trained), default=0) / best, spent / full, now / full, \
        len(trained)


def algorithms(pool: dict[str, Curve], share: float, objective: str, grace: int, reduction: int) -> dict[str, Callable]:
    """Name -> maker of an algorithm."""
    from tune_algorithms import TPE, HyperBand, Random, RayASHA, SuccessiveHalving

    at = rungs(grace, reduction, len(next(iter(pool.values()))["ap"]))
    both, settings = {"ap": "max", objective: "min"}, {"reduction": reduction, "trials": len(pool), "share": share}

    class WithoutValues(Promotion):
        def record(self, trial: str, epoch: int, figures: dict, cost: float, values: dict | None = None) -> None:
            super().record(trial, epoch, figures, cost)

    return {
        "promotion": lambda: Promotion(at, both, **settings),
        "promotion-without-values": lambda: WithoutValues(at, both, **settings),
        "promotion-ap": lambda: Promotion(at, {"ap": "max"}, **settings),
        "halving-fronts": lambda: SuccessiveHalving(pool, at, share, DIRECTIONS),
        "halving-ap": lambda: SuccessiveHalving(pool, at, share, None),
        "ray-asha": lambda: RayASHA(pool, at, None, reduction),
        "ray-asha-share": lambda: RayASHA(pool, at, share, reduction),
        "hyperband": lambda: HyperBand(pool, at, share, reduction),
        "tpe-pruner": lambda: TPE(pool, at, None),
        "tpe-pruner-share": lambda: TPE(pool, at, share),
        "random": lambda: Random(pool, at, share),
    }


def one_order(curves: list[Curve], trials: int, order: int, name: str, options: argparse.Namespace, workers: int) -> tuple:
    """Figures of one algorithm on one order."""
    drawn = np.random.default_rng(order).permutation(len(curves))[:trials]
    pool = {str(number): curves[number] for number in drawn}
    algorithm = algorithms(pool, options.share, options.objective, options.grace, options.reduction)[name]()
    return figures_of(pool, *replay(pool, algorithm, workers), options.objective)


def row(label: str, found: np.ndarray, seconds: float) -> str:
    """A row of the table."""
    low, median, high = np.percentile(found, [25, 50, 75], axis=0)
    return (f"| {label} | **{median[0]:.3f}** ({low[0]:.3f} to {high[0]:.3f}) | {median[1]:.3f} ({low[1]:.3f} to "
            f"{high[1]:.3f}) | {median[2]:.3f}, {found[:, 2].max():.3f} | {median[3]:.3f} | {median[4]:.0f} | {seconds:.2f} |")


def main() -> None:
    """Print a table for each set of curves and each number of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, nargs="*", default=sorted(Path(__file__).with_name("curves").glob("*.json")))
    parser.add_argument("--synthetic", nargs="*", default=None, help="default: all three, unless --curves is given")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--trials", type=int, nargs="*", default=[64, 24])
    parser.add_argument("--workers", type=int, nargs="*", default=[1])
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--grace", type=int, default=1)
    parser.add_argument("--reduction", type=int, default=3)
    parser.add_argument("--objective", default="gflops")
    parser.add_argument("--algorithms", nargs="*", default=None)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    sets = {path.stem: load(path) for path in options.curves}
    given = parser.get_default("curves") != options.curves
    for kind in ([] if given else ["scaling", "rates", "crossing"]) if options.synthetic is None else options.synthetic:
        sets[kind] = synthetic(kind)
    with ProcessPoolExecutor(options.processes) as executor:
        for name, curves in sets.items():
            for trials in sorted({min(trials, len(curves)) for trials in options.trials}, reverse=True):
                print(f"\n{name}, {trials} of {len(curves)} trials, {options.orders} orders\n\n"
                      "| algorithm, workers | hypervolume (quartiles) | regret of AP | compute, most | time | trained | s |\n"
                      "|---|---|---|---|---|---|---|")
                known = algorithms({"0": curves[0]}, options.share, options.objective, options.grace, options.reduction)
                for algorithm, workers in itertools.product(options.algorithms or known, options.workers):
                    start = time.perf_counter()
                    calls = [(curves, trials, order, algorithm, options, workers) for order in range(options.orders)]
                    found = list(executor.map(one_order, *zip(*calls), chunksize=4)) if options.processes > 1 else \
                        list(itertools.starmap(one_order, calls))
                    print(row(f"{algorithm}, {workers}", np.array(found), (time.perf_counter() - start) / len(found)),
                          flush=True)


if __name__ == "__main__":
    main()
