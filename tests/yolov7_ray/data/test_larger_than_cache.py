"""A dataset in S3 that is larger than the node's cache: every sample right, the disk bounded, few bytes twice."""

from pathlib import Path

import numpy as np
import pytest
from conftest import ingest_here
from test_prefetch import faulty, fetched, wait_for  # noqa: F401 (a fixture)
from yolov7_ray.data.manifest import Shard
from yolov7_ray.data.reading.cache import NodeCache
from yolov7_ray.data.reading.dataset import ArrowDataset, evaluation_loader, train_loader
from yolov7_ray.data.reading.shard_windows import check_cache_size
from yolov7_ray.data.sources.spec import ShapesSource
from yolov7_ray.errors import JobError

from yolov7.images.config import AugmentConfig

NUM_IMAGES = 48


@pytest.fixture(scope="module")
def uri(s3_server) -> str:
    source = ShapesSource(format="shapes", splits={"train": NUM_IMAGES, "val": 1}, image_size_px=64)
    ingest_here(source, "s3://bucket/larger", shard_mb=0.012)
    return "s3://bucket/larger"


@pytest.fixture(scope="module")
def whole(uri, tmp_path_factory) -> ArrowDataset:
    """The same, with a cache that holds it."""
    return ArrowDataset(uri, "train", NodeCache(tmp_path_factory.mktemp("whole")))


def small_cache(whole: ArrowDataset, directory: Path, num_shards: float) -> NodeCache:
    shards = whole.split.shards
    assert len(shards) >= 10
    return NodeCache(directory, num_shards * max(shard.num_bytes for shard in shards))


def disk_bytes(directory: Path) -> int:
    """What the cache takes, with the files that are evicted but still mapped by this process."""
    mapped = {line.split(None, 5)[5] for line in Path("/proc/self/maps").read_text().splitlines()
              if str(directory) in line and "(deleted)" in line}
    kept = sum(path.stat().st_size for path in (directory / "shards").iterdir() if path.exists())
    return kept + len(mapped) * max(path.stat().st_size for path in (directory / "shards").iterdir())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks mapped files up in /proc")
def test_any_order_is_right_and_the_disk_bounded(whole, uri, tmp_path):
    dataset = ArrowDataset(uri, "train", small_cache(whole, tmp_path, 3))
    largest_bytes = max(shard.num_bytes for shard in whole.split.shards)
    for index in np.random.default_rng(0).permutation(NUM_IMAGES):
        np.testing.assert_array_equal(dataset.read(index).image, whole.read(index).image)
        assert disk_bytes(tmp_path) <= dataset.cache.limit_bytes + largest_bytes  # the one that was evicted last
    assert len(dataset._open) <= 4


def epoch(dataset: ArrowDataset, number: int = 0, **settings) -> list:
    augment = AugmentConfig(mosaic=1.0, mixup=0.0, partner_window=4)
    return list(train_loader(dataset, size_px=64, augment=augment, batch_size=4, seed=0, epoch=number, rank=0,
                             world_size=1, **settings))


@pytest.mark.parametrize("processes", [0, 1])
def test_training_in_blocks_fetches_each_shard_once(whole, uri, tmp_path, faulty, processes):  # noqa: F811
    dataset = ArrowDataset(uri, "train", small_cache(whole, tmp_path, 6.5))
    faulty.requests.clear()
    steps = epoch(dataset, shuffle_shards=2, processes=processes)
    wanted = epoch(whole, shuffle_shards=2)
    for [step], [expected] in zip(steps, wanted, strict=True):
        np.testing.assert_array_equal(step.batch.images, expected.batch.images)
    ids = [i for [step] in steps for i in step.batch.image_ids.tolist()]
    assert sorted(ids) == list(range(NUM_IMAGES))
    names = fetched(faulty)
    assert {Path(shard.path).name for shard in whole.split.shards} <= set(names)
    # what the next epoch needs first comes again, and on a starved machine what the reader overtook on its way
    assert len(names) <= len(whole.split.shards) + 16


@pytest.mark.parametrize(("shuffle_shards", "cache_gb", "message"), [
    (None, 1.5,
     r"data\.cache_gb: 1\.5 GB cannot hold the 2 GB of s3://b/d.* set data\.shuffle_shards to 3 or less, or"),
    (4, 1.5, r"data\.shuffle_shards: 4 shards and as many to come are 1\.6 GB of s3://b/d, more than .* of 1\.5; "
             r"set data\.shuffle_shards to 3 or less"),
    (1, 0.1, r"data\.shuffle_shards: .*; raise data\.cache_gb"),
])
def test_a_cache_that_cannot_hold_what_is_in_use_is_refused(shuffle_shards, cache_gb, message):
    shards = [Shard(path=f"{number}.arrow", num_rows=1, num_bytes=200_000_000, sha256="0") for number in range(10)]
    with pytest.raises(JobError, match=message):
        check_cache_size("s3://b/d", shards, shuffle_shards, cache_gb)
    check_cache_size("s3://b/d", shards, 3, 1.5)
    check_cache_size("s3://b/d", shards, None, 2)
    check_cache_size("/local", shards, shuffle_shards, cache_gb)


def test_nodes_that_share_the_reading_need_a_smaller_cache():
    shards = [Shard(path=f"{number}.arrow", num_rows=1, num_bytes=200_000_000, sha256="0") for number in range(10)]
    check_cache_size("s3://b/d", shards, None, 0.5, num_nodes=4)
    with pytest.raises(JobError, match="every batch is drawn from all of it, on 4 nodes at most; set data.shuffle_sh"):
        check_cache_size("s3://b/d", shards, None, 0.49, num_nodes=4)
    with pytest.raises(JobError, match="data.shuffle_shards: 3 shards and as many to come"):
        check_cache_size("s3://b/d", shards, 3, 1, num_nodes=4)


def test_an_epoch_of_a_dataset_that_fits_fetches_it_ahead_and_once(whole, uri, tmp_path, faulty):  # noqa: F811
    dataset = ArrowDataset(uri, "train", NodeCache(tmp_path))
    faulty.requests.clear()
    steps = iter(train_loader(dataset, size_px=64, augment=AugmentConfig(mosaic=0, mixup=0), batch_size=1, seed=0,
                              epoch=0, rank=0, world_size=1))
    next(steps)
    wait_for(lambda: len(list((tmp_path / "shards").glob("*.arrow"))) == len(whole.split.shards))  # one sample is read
    rest = list(steps)
    assert len(rest) == NUM_IMAGES - 1 and len(fetched(faulty)) == len(whole.split.shards)


def test_evaluation_is_fetched_ahead_too(whole, uri, tmp_path):
    dataset = ArrowDataset(uri, "train", NodeCache(tmp_path))
    batches = iter(evaluation_loader(dataset, size_px=64, batch_size=2, rank=0, world_size=1))
    ids = next(batches).image_ids.tolist()
    wait_for(lambda: len(list((tmp_path / "shards").glob("*.arrow"))) == len(whole.split.shards))
    assert sorted(ids + [i for batch in batches for i in batch.image_ids.tolist()]) == list(range(NUM_IMAGES))
