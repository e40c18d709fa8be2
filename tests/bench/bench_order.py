"""What the beginning of an epoch costs a rank: seconds, memory, and bytes sent to each loader process.

    python tests/bench/bench_order.py [--images 10_000_000] [--shards 10_000] [--shuffle-shards 64] [--nodes 64]

Nothing is read: the dataset is a manifest alone. A rank makes the loader of an epoch and asks for the shards to fetch
up to its first step; a loader process gets what is pickled for it. Each variant runs in a process of its own.
"""

import argparse
import multiprocessing
import pickle
import resource
import time
from types import SimpleNamespace
from unittest import mock

import numpy as np
from yolov7_ray.data.manifest import Shard
from yolov7_ray.data.reading import dataset as reading

from yolov7.images.config import AugmentConfig
from yolov7.training.stage_clock import Clock

PARTS_PER_NODE, BATCH_PER_PART = 8, 8
WEIGHTED = "weighted"
"""Variant that draws with replacement."""


class EmptyCache:
    """A cache that is never asked to fetch: what is wanted is found, and dropped."""

    def missing(self, dataset_uri: str, shards: list[Shard]) -> list[Shard]:
        """None."""
        return []


def manifest_only(num_images: int, num_shards: int) -> reading.ArrowDataset:
    """A dataset with so many shards, none of which exists."""
    dataset = object.__new__(reading.ArrowDataset)
    rows = [len(range(number, num_images, num_shards)) for number in range(num_shards)]
    shards = tuple(Shard(f"train/{number:05d}-{number:064x}.arrow", count, 128_000_000, f"{number:064x}")
                   for number, count in enumerate(rows))
    dataset.uri, dataset.split_name, dataset.clock, dataset._open = "s3://bucket/dataset", "train", Clock(), {}
    dataset.cache, dataset.manifest = EmptyCache(), None
    dataset.split = SimpleNamespace(shards=shards, num_rows=num_images)
    dataset._ends = np.cumsum(rows)
    return dataset


def measure(options: argparse.Namespace, variant: str, settings: dict) -> str:
    """One row of the table."""
    dataset, made = manifest_only(options.images, options.shards), []
    parts = options.nodes * PARTS_PER_NODE
    weights = np.random.default_rng(0).random(options.images) if variant == WEIGHTED else None

    def load(items: object, order: object, processes: int) -> object:
        made.append(items)
        return iter(range(len(items)))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with mock.patch.object(reading, "load" if hasattr(reading, "load") else "_load", load):
        seconds = []
        for epoch in range(options.epochs):
            start = time.process_time()
            next(iter(reading.train_loader(dataset, size_px=640, augment=AugmentConfig(), epoch=epoch, seed=0, rank=3,
                                           world_size=parts, batch_size=BATCH_PER_PART * parts, processes=8,
                                           weights=weights, **settings)))
            seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    start = time.process_time()
    sent = pickle.dumps(made[-1])
    pickling = time.process_time() - start
    return (f"{np.median(seconds):8.2f} s {len(sent) / 1e6:8.1f} MB, {pickling:5.2f} s to pickle {peak / 1e3:8.0f} MB more "
            "memory")


def main() -> None:
    """Print a row for each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--shuffle-shards", type=int, default=64)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    dealt = {"node_of_part": np.repeat(np.arange(options.nodes), PARTS_PER_NODE).tolist()}
    blocks = {"shuffle_shards": options.shuffle_shards}
    variants = {"shuffled": {}, "shuffle_shards": blocks, WEIGHTED: {}}
    if "node_of_part" in reading.train_loader.__kwdefaults__:
        variants |= {"locality: node": dealt, "locality: node, shuffle_shards": dealt | blocks}
    print(f"{options.images} images in {options.shards} shards, a rank of {options.nodes} x {PARTS_PER_NODE}, CPU time")
    for variant, settings in variants.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(f"{variant:32s}{pool.apply(measure, (options, variant, settings))}", flush=True)


if __name__ == "__main__":
    main()
