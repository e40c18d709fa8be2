"""Reading: samples as they were written, and an order that depends on (seed, epoch) alone."""

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import coco_source, ingest_here, jpeg, make_coco
from hypothesis import given, settings
from hypothesis import strategies as st
from yolov7_ray import storage
from yolov7_ray.data.reading.cache import NodeCache
from yolov7_ray.data.reading.dataset import ArrowDataset, evaluation_loader, train_loader
from yolov7_ray.errors import Corrupt, JobError

from yolov7.images.config import AugmentConfig

PLAIN = AugmentConfig(mosaic=0.0, mixup=0.0)
FULL = AugmentConfig(mosaic=0.9, mosaic_nine=0.3, mixup=0.3, paste_in=0.3, copy_paste=0.2, partner_window=8)


@pytest.fixture(scope="session")
def train(shapes_dataset, tmp_path_factory) -> ArrowDataset:
    return ArrowDataset(shapes_dataset, "train", NodeCache(tmp_path_factory.mktemp("cache")))


# --- samples --------------------------------------------------------------------------------------------


@pytest.fixture
def coco(place, tmp_path) -> ArrowDataset:
    ingest_here(coco_source(make_coco(tmp_path / "raw")), place)
    return ArrowDataset(place, "train", NodeCache(tmp_path / "cache"))


def test_samples_are_what_was_ingested(coco):
    assert len(coco) == 6 and coco.classes == ("cat", "dog") and coco.fingerprint == coco.manifest.fingerprint
    sample = coco.read(1)
    assert coco.image_bytes(1) == jpeg(101)
    assert sample.image.shape == (96, 128, 3) and sample.image.dtype == np.uint8
    assert (sample.image_id, sample.file_name, sample.original_size_hw) == (101, "0001.jpg", (96, 128))
    np.testing.assert_array_equal(sample.boxes_xyxy, np.array([[10, 20, 40, 60], [50.5, 8, 110.5, 72]], np.float32))
    assert sample.labels.dtype == np.int64 and sample.labels.tolist() == [0, 1]
    assert sample.iscrowd.tolist() == [False, True] and sample.area.tolist() == [700.5, 3840]
    assert sample.polygons[1] == []
    np.testing.assert_array_equal(sample.polygons[0][0], [[10, 20], [40, 20], [40, 60]])


def test_truth_needs_no_pixels(coco):
    truth, sample = coco.truth(1), coco.read(1)
    assert (truth.image_id, truth.file_name, truth.size_hw) == (101, "0001.jpg", (96, 128))
    for name in ("boxes_xyxy", "labels", "iscrowd", "area"):
        np.testing.assert_array_equal(getattr(truth, name), getattr(sample, name))


def test_reduced_decoding_keeps_full_coordinates(coco):
    whole, half = coco.read(0), coco.read(0, reduce=2)
    assert half.image.shape == (48, 64, 3) and half.original_size_hw == (96, 128)
    np.testing.assert_array_equal(half.boxes_xyxy, whole.boxes_xyxy)


def test_rows_of_all_shards_in_order(train, shapes_dataset):
    assert len(train.split.shards) > 3  # so that this tests what it says
    assert [train.truth(index).image_id for index in range(len(train))] == list(range(23))
    validation = ArrowDataset(shapes_dataset, "val", train.cache)
    assert [validation.truth(index).image_id for index in range(7)] == list(range(23, 30))
    for index in (-1, 23):
        with pytest.raises(IndexError):
            train.read(index)


def test_counts_and_sizes_of_all_samples(coco, train):
    assert coco.class_counts().tolist() == [[1, 1], [1, 0]] + [[1, 1]] * 4  # the crowd does not count
    assert coco.sizes_hw().tolist() == [[96, 128]] * 6 and coco.size_hw(3) == (96, 128)
    truths = [train.truth(index) for index in range(23)]
    expected = [np.bincount(truth.labels, minlength=4).tolist() for truth in truths]
    assert train.class_counts().tolist() == expected


def test_pickles_small_and_reads_on(train):
    train.read(0)
    copy = pickle.loads(pickle.dumps(train))
    assert len(pickle.dumps(train)) < 20_000
    np.testing.assert_array_equal(copy.read(20).image, train.read(20).image)


def test_images_without_objects(tmp_path):
    root = make_coco(tmp_path / "raw", 2)
    (root / "train.json").write_text((root / "train.json").read_text().replace('"image_id": 100', '"image_id": 101'))
    ingest_here(coco_source(root), str(tmp_path / "d"))
    dataset = ArrowDataset(str(tmp_path / "d"), "train", NodeCache(tmp_path / "cache"))
    assert dataset.read(0).boxes_xyxy.shape == (0, 4) and dataset.read(0).polygons == []
    steps = list(train_loader(dataset, size_px=64, augment=AugmentConfig(), batch_size=2, seed=0, epoch=0, rank=0,
                              world_size=1))
    assert steps[0][0].batch.images.shape == (2, 3, 64, 64)


def test_mistakes(tmp_path, shapes_dataset):
    with pytest.raises(JobError, match="there is no dataset here"):
        ArrowDataset(str(tmp_path), "train")
    with pytest.raises(JobError, match="split: 'test' is unknown; the dataset has train, val"):
        ArrowDataset(shapes_dataset, "test")


# --- batches --------------------------------------------------------------------------------------------


def steps_of(dataset, rank=0, world_size=1, augment=FULL, **settings) -> list:
    return list(train_loader(dataset, size_px=64, augment=augment, batch_size=6, seed=3, epoch=2, rank=rank,
                             world_size=world_size, multi_scale=0.5, stride_px=8, **settings))


def global_batches(dataset, world_size: int, **settings) -> list[tuple[torch.Tensor, list[int]]]:
    """Images and ids of each global batch, put together from all ranks."""
    ranks = [steps_of(dataset, rank, world_size, **settings) for rank in range(world_size)]
    joined = []
    for shares in zip(*ranks, strict=True):
        real = [part for share in shares for part in share if part.num_samples]
        joined.append((torch.cat([share.batch.images for share in real]),
                       torch.cat([share.batch.image_ids for share in real]).tolist()))
    return joined


@settings(max_examples=8, deadline=None)
@given(world_size=st.integers(1, 8), spare=st.integers(0, 3), first_step=st.integers(0, 3),
       window=st.sampled_from([0, 4, 8]), decoded_bytes=st.sampled_from([0, 1e9]), weighted=st.booleans())
def test_batches_do_not_depend_on_world_or_restart(train, world_size, spare, first_step, window, decoded_bytes,
                                                   weighted):
    settings = {"augment": replace(FULL, partner_window=window), "weights": np.arange(1, 24) if weighted else None}
    expected = global_batches(train, 1, **settings)
    actual = global_batches(train, world_size, parts=world_size + spare, first_step=first_step,
                            decoded_bytes=decoded_bytes, **settings)
    assert len(actual) == len(expected) - first_step
    for (images, ids), (expected_images, expected_ids) in zip(actual, expected[first_step:], strict=True):
        assert ids == expected_ids
        assert torch.equal(images, expected_images)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_fewer_ranks_take_the_very_parts_of_more(train, world_size):
    """Batch statistics are those of a part: a part must not change with the number of ranks."""
    every = [[share for rank in ranks for share in rank]
             for ranks in zip(*(steps_of(train, rank, 4) for rank in range(4)), strict=True)]
    fewer = [[share for rank in ranks for share in rank]
             for ranks in zip(*(steps_of(train, rank, world_size, parts=4) for rank in range(world_size)), strict=True)]
    for parts, others in zip(every, fewer, strict=True):
        assert [part.num_samples for part in parts] == [part.num_samples for part in others]
        assert all(torch.equal(part.batch.images, other.batch.images) for part, other in zip(parts, others))
    with pytest.raises(ValueError, match="parts: 1 are too few for 2 ranks"):
        steps_of(train, 0, 2, parts=1)


@pytest.mark.parametrize("processes", [1, 3])
def test_batches_do_not_depend_on_loader_processes(train, processes):
    for [here], [there] in zip(steps_of(train), steps_of(train, processes=processes), strict=True):
        assert here.num_samples == there.num_samples
        assert torch.equal(here.batch.images, there.batch.images)
        assert torch.equal(here.batch.targets, there.batch.targets)
        assert torch.equal(here.batch.image_ids, there.batch.image_ids)


def test_an_epoch_is_every_sample_once(train):
    ids = [i for [step] in steps_of(train, augment=PLAIN) for i in step.batch.image_ids.tolist()]
    assert sorted(ids) == list(range(23))


def test_empty_shares_keep_ranks_in_step(train):
    ranks = [list(train_loader(train, size_px=64, augment=PLAIN, batch_size=3, seed=0, epoch=0, rank=rank,
                               world_size=5)) for rank in range(5)]
    assert {len(steps) for steps in ranks} == {8}
    assert [steps[0][0].num_samples for steps in ranks] == [1, 1, 1, 0, 0]
    assert all(len(steps[0][0].batch.images) == 1 for steps in ranks)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its memory in /proc")
def test_memory_does_not_grow_over_epochs(train):
    def resident_bytes() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    after = []
    for epoch in range(10):
        for _ in train_loader(train, size_px=160, augment=FULL, batch_size=8, seed=0, epoch=epoch, rank=0,
                              world_size=1):
            continue
        after.append(resident_bytes())
    slope = np.polyfit(range(2, 10), after[2:], 1)[0]
    assert slope < 0.1 * 23 * 3 * 160**2  # bytes an epoch: a tenth of the epoch's images


# --- evaluation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size, processes", [(1, 0), (3, 0), (8, 0), (2, 1)])
def test_evaluation_sees_every_image_once(train, world_size, processes):
    batches = [batch for rank in range(world_size) for batch in evaluation_loader(
        train, size_px=96, batch_size=4, rank=rank, world_size=world_size, processes=processes)]
    assert sorted(i for batch in batches for i in batch.image_ids.tolist()) == list(range(23))
    for batch in batches:
        assert batch.images.shape[1:] == (3, 96, 96) and len(batch.letterboxes) == len(batch.images) <= 4
        assert batch.letterboxes[0].original_size_hw == (64, 64)


# --- processes ------------------------------------------------------------------------------------------


def processes_with(marker: str) -> list[int]:
    """Living processes that inherited `marker` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes() and path.with_name("stat").read_text().split()[2] != "Z":
                found.append(int(path.parent.name))
    return found


READER = """
import sys, time
from yolov7.images.config import AugmentConfig
from yolov7_ray.data.reading.dataset import ArrowDataset, train_loader

if __name__ == "__main__":
    steps = train_loader(ArrowDataset(sys.argv[1], "train"), size_px=64, augment=AugmentConfig(), batch_size=2,
                         seed=0, epoch=0, rank=0, world_size=1, processes=2)
    next(iter(steps))
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks processes up in /proc")
def test_loader_processes_do_not_outlive_their_reader(shapes_dataset, tmp_path):
    script, marker = tmp_path / "reader.py", f"MARKER={uuid.uuid4().hex}"
    script.write_text(READER)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = os.environ | {"PYTHONPATH": path, "MARKER": marker.partition("=")[2]}
    reader = subprocess.Popen([sys.executable, script, shapes_dataset], env=environment, stdout=subprocess.PIPE)
    assert reader.stdout.readline() == b"ready\n"
    assert len(processes_with(marker)) >= 4  # reader, fork server, two loaders
    reader.kill()
    reader.wait(60)
    deadline = time.monotonic() + 120
    while processes_with(marker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_with(marker) == []


# --- faults ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [0, 1])
def test_damaged_shards_are_one_clear_error(tmp_path, processes):
    uri = str(tmp_path / "d")
    ingest_here(coco_source(make_coco(tmp_path / "raw")), uri)
    dataset = ArrowDataset(uri, "train", NodeCache(tmp_path / "cache"))
    path = storage.join(uri, dataset.split.shards[0].path)
    data = bytearray(storage.read_bytes(path))
    data[len(data) // 2] ^= 1
    storage.write_bytes(path, bytes(data))
    with pytest.raises(Corrupt, match="the shard is corrupt: its sha256"):
        steps_of(dataset, processes=processes)


def test_an_undecodable_row_is_named(train, monkeypatch):
    monkeypatch.setattr("yolov7_ray.data.reading.mapped_shard.MappedShard.image", lambda *_: b"no image")
    with pytest.raises(Corrupt, match="train image 4 cannot be read .shapes-0-000004.jpg"):
        train.read(4)
