"""The first epoch from S3, cold against warm: images per second, and the time to the first batch.

    python tests/bench/bench_s3.py [--images 400] [--size-px 320] [--rounds 3] [--latency-ms 0] [--shard-mb 1]

A real S3 server runs on loopback; with a latency, behind a proxy that lets every request wait. Of each kind there
are as many epochs as rounds, in turn; medians of wall time. Server and loader share the machine's cores.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "yolov7_ray"))

import faulty_s3  # noqa: E402
from conftest import end, ingest_here, start_seaweed  # noqa: E402
from yolov7_ray import storage  # noqa: E402
from yolov7_ray.data.reading import dataset as dataset_module  # noqa: E402
from yolov7_ray.data.reading.cache import NodeCache  # noqa: E402
from yolov7_ray.data.reading.dataset import train_loader, ArrowDataset  # noqa: E402
from yolov7_ray.data.sources.spec import ShapesSource  # noqa: E402

from yolov7.images.config import AugmentConfig  # noqa: E402

BATCH_SIZE = 16


@contextmanager
def server(latency_ms: float):
    """A server with this latency in the environment of all clients; its directory."""
    directory = Path(tempfile.mkdtemp(prefix="bench-s3-"))
    process, environment = start_seaweed(directory)
    os.environ.update(environment)
    try:
        with faulty_s3.running(environment["AWS_ENDPOINT_URL"]) as proxy:
            proxy.delay_s = latency_ms / 1e3
            yield directory, proxy
    finally:
        end(process)
        shutil.rmtree(directory, ignore_errors=True)


def epoch(dataset: ArrowDataset, number: int, size_px: int, shuffle_shards: int | None) -> tuple:
    """Images per second of an epoch, the seconds to its first batch, and those of the later ones."""
    begun, waits = time.perf_counter(), []
    steps = iter(train_loader(dataset, size_px=size_px, augment=AugmentConfig(), batch_size=BATCH_SIZE, seed=0,
                              epoch=number, rank=0, world_size=1, shuffle_shards=shuffle_shards))
    while True:
        asked = time.perf_counter()
        step = next(steps, None)
        if step is None:
            return len(dataset) / (time.perf_counter() - begun), waits[0], sum(waits[1:])
        waits.append(time.perf_counter() - asked)


def without_prefetch(measure: Callable[[], tuple]) -> tuple:
    """`measure()` with shards that are fetched when they are first read."""
    original, dataset_module._prefetched = dataset_module._prefetched, lambda items, *_, **__: items
    try:
        return measure()
    finally:
        dataset_module._prefetched = original


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size-px", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--shard-mb", type=float, default=1)
    options = parser.parse_args()
    with server(options.latency_ms) as (directory, proxy):
        uri = "s3://bucket/shapes"
        source = ShapesSource(format="shapes", splits={"train": options.images, "val": 1},
                              image_size_px=options.size_px)
        ingest_here(source, uri, shard_mb=options.shard_mb)
        if options.latency_ms:
            os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        ArrowDataset(uri, "train")  # the first client of a process takes half a second, in warm epochs too
        compare(uri, directory, options)


def compare(uri: str, directory: Path, options: argparse.Namespace) -> None:
    """Run all kinds in turn."""
    results: dict[str, list[tuple]] = {}
    for number in range(options.rounds):
        def run(name: str, kind: str, shuffle_shards: int | None = None) -> None:
            dataset = ArrowDataset(uri, "train", NodeCache(directory / f"cache-{name}-{number}"))

            def measure() -> tuple:
                return epoch(dataset, number, options.size_px, shuffle_shards)

            results.setdefault(kind, []).append(without_prefetch(measure) if "without" in kind else measure())

        run("a", "cold"), run("a", "warm")
        run("b", "cold, in blocks of 3 shards", 3), run("b", "warm, in blocks of 3 shards", 3)
        run("c", "cold, without prefetch")
    dataset = ArrowDataset(uri, "train", NodeCache(directory / "cache-a-0"))
    shard_bytes = [shard.num_bytes for shard in dataset.split.shards]
    print(f"{len(dataset)} images of {options.size_px} px, {len(shard_bytes)} shards, {sum(shard_bytes) / 1e6:.1f} MB; "
          f"latency {options.latency_ms:g} ms, load {os.getloadavg()[0]:.1f}")
    warm = statistics.median(rate for rate, *_ in results["warm"])
    for kind, runs in results.items():
        rate, first_s, later_s = np.median(np.array(runs), axis=0)
        print(f"{kind:32s} {rate:7.1f} images/s  {rate / warm:5.2f} of warm   first batch {first_s:5.2f} s, "
              f"others {later_s:5.2f} s")
    single_download(uri, dataset, directory)


def single_download(uri: str, dataset: ArrowDataset, directory: Path) -> None:
    """MB/s of one shard, verified."""
    shard = dataset.split.shards[0]
    begun, cpu = time.perf_counter(), time.process_time()
    storage.download(storage.join(uri, shard.path), directory / "one", shard.sha256, shard.num_bytes)
    took_s, cpu_s, megabytes = time.perf_counter() - begun, time.process_time() - cpu, shard.num_bytes / 1e6
    print(f"one shard of {megabytes:.1f} MB: {megabytes / took_s:.0f} MB/s, {cpu_s:.3f} CPU s")


if __name__ == "__main__":
    main()
