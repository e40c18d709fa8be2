"""Recipes side by side on one dataset: the same model, images, epochs and seeds, one thread each, without Ray.

    python submit.py jobs/ingest-voc.yaml --set source.uri=/data/BCCD --set dataset=datasets/bccd
    python tests/bench/bench_recipes.py datasets/bccd --set data.image_size_px=256 --set model.width=0.5 --set epochs=25 \\
        --recipe tiny --recipe auto [--recipe "small augment.mosaic=0.5"] [--images 50,100,200] [--seeds 3] [--split test]

A recipe is its name, and values over it. AP50 and AP of the average on the split at the end of training, a line for
each training, and their medians.
"""

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from yolov7.training.engine import Diverged, train_one_epoch
from yolov7.training.stage_clock import Clock
from yolov7_ray.data.reading.chosen import ChosenSamples
from yolov7_ray.data.reading.dataset import open_splits
from yolov7_ray.evaluate.rank_share import Worker, evaluate_share, merged
from yolov7_ray.jobs.document import assign
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.train.build import build_criterion, build_state
from yolov7_ray.train.loop import EpochBatches


def outcome(values: dict, split: str) -> tuple[float, float, float]:
    """AP50, AP and CPU seconds of one training; 0 where it diverges."""
    torch.set_num_threads(1)
    spec = validate(values)
    worker = Worker(rank=0, world_size=1, device=torch.device("cpu"), loader_processes=0, precision="bf16")
    train_set, val_set = open_splits(spec.dataset, spec.data, "train", split)
    train_set = ChosenSamples(train_set, spec.data.num_chosen(len(train_set)))
    state = build_state(spec, train_set, worker.device)
    criterion, batches = build_criterion(spec, state.model, train_set), EpochBatches(spec, train_set, worker, Clock())
    start = time.process_time()
    try:
        for _ in range(spec.epochs):
            train_one_epoch(state, batches(state), criterion, precision=worker.precision)
    except Diverged:
        return 0.0, 0.0, time.process_time() - start
    cpu_s = time.process_time() - start
    worker.precision = "fp32"
    found = evaluate_share(state.ema.model, val_set, spec.evaluation, worker, size_px=spec.data.image_size_px,
                           batch_size=16)
    overall = merged(found, worker).to_dict()["overall"]
    return overall["ap50"], overall["ap"], cpu_s


def job(dataset: str, recipe: str, overrides: list[str], images: int | None, seed: int) -> dict:
    """A train job of the recipe, with what every training of the bench shares."""
    name, *own = recipe.split()
    values = {"kind": "train", "dataset": dataset, "recipe": name, "seed": seed,
              "model": {"architecture": "yolov7-tiny"}, "data": {"loader_processes": 0, "max_images": images}}
    for override in [*overrides, *own]:
        assign(values, override)
    return values


def main() -> None:
    """Print a line for each training, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--recipe", action="append", required=True, dest="recipes")
    parser.add_argument("--images", default="", help="numbers of training images; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", default="val")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args()
    numbers = [int(number) for number in options.images.split(",")] if options.images else [None]
    runs = [(images, recipe, seed) for images in numbers for seed in range(options.seeds) for recipe in options.recipes]
    jobs = [job(options.dataset, recipe, options.overrides, images, seed) for images, recipe, seed in runs]
    found: dict[tuple, list] = {}
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        for (images, recipe, seed), result in zip(runs, pool.map(outcome, jobs, [options.split] * len(jobs))):
            found.setdefault((images, recipe), []).append(result)
            print(f"{images or 'all'} images, {recipe}, seed {seed}: "
                  "AP50 {:.3f}, AP {:.3f}, {:.0f} CPU s".format(*result), flush=True)
    print("\n| images | recipe | AP50 | AP | CPU s |\n|---|---|---|---|---|")
    for (images, recipe), results in found.items():
        ap50, ap, cpu_s = (statistics.median(column) for column in zip(*results))
        print(f"| {images or 'all'} | {recipe} | {ap50:.3f} | {ap:.3f} | {cpu_s:.0f} |")


if __name__ == "__main__":
    main()
