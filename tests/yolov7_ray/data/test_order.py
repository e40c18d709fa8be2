"""Sample order: orders, windows, sizes, weights, and how often the loaders decode an image."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yolov7_ray.data.reading.dataset import evaluation_loader, evaluation_order, train_loader
from yolov7_ray.data.reading.decoded_images import DecodedSamples
from yolov7_ray.data.reading.order import (
    canvas_hw,
    class_weights,
    epoch_batches,
    epoch_order,
    epoch_positions,
    equal_parts,
    image_weights,
    partner_window,
    rank_share,
    step_size_px,
    widest_window,
)

from yolov7.images.config import AugmentConfig
from yolov7.images.sample import Sample
from yolov7.training.stage_clock import Clock


class Pictures:
    """A data set of one shard in memory: image i has `sizes_hw[i]`, noise and one box. It notes what is read."""

    uri, split, cache = "memory", SimpleNamespace(shards=["all"]), SimpleNamespace(missing=lambda uri, shards: [])

    def __init__(self, sizes_hw):
        self._sizes_hw, self.reads, self.clock = np.array(sizes_hw), [], Clock()
        self.shard_rows = [len(sizes_hw)]

    def __len__(self):
        return len(self._sizes_hw)

    def sizes_hw(self):
        return self._sizes_hw

    def size_hw(self, index):
        return tuple(self._sizes_hw[index].tolist())

    def read(self, index, reduce=1):
        self.reads.append((int(index), reduce))
        height, width = self.size_hw(index)
        shape = (-(-height // reduce), -(-width // reduce), 3)
        image = np.random.default_rng(int(index)).integers(0, 256, shape, np.uint8)
        return Sample(image=image, boxes_xyxy=np.array([[0, 0, width, height]], np.float32),
                      labels=np.zeros(1, np.int64), iscrowd=np.zeros(1, bool), area=np.ones(1, np.float32),
                      polygons=None, image_id=int(index), file_name="", original_size_hw=(height, width))


def pictures(count: int, least_px: int = 24, most_px: int = 64) -> Pictures:
    return Pictures(np.random.default_rng(0).integers(least_px, most_px, (count, 2)))


@given(st.integers(1, 500), st.integers(1, 64), st.integers(0, 9), st.integers(0, 9), st.integers(1, 8))
def test_every_sample_once_whatever_the_world(num_samples, batch_size, seed, epoch, world_size):
    batches = epoch_batches(num_samples, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(num_samples))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    for batch in batches:
        shares = [rank_share(batch, rank, world_size) for rank in range(world_size)]
        np.testing.assert_array_equal(np.concatenate(shares), batch)


def test_epochs_and_seeds_differ():
    orders = {tuple(np.concatenate(epoch_batches(50, 8, seed, epoch))) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


# --- windows of partners --------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 50))
def test_equal_parts_are_those_of_numpy(size, count, start):
    parts, expected = equal_parts(range(start, start + size), count), np.array_split(np.arange(start, start + size), count)
    assert [list(part) for part in parts] == [part.tolist() for part in expected] and parts.stop == start + size
    assert [parts.part_of(position) for position in range(start, start + size)] == \
        [number for number, part in enumerate(expected) for _ in part]


@given(st.integers(1, 500), st.integers(1, 64), st.sampled_from([0, 4, 16, 32]))
def test_windows_are_whole_batches_or_parts_of_one(num_samples, batch_size, window):
    steps = epoch_positions(num_samples, batch_size)
    windows = [partner_window(steps, batch_size, window, position) for position in range(num_samples)]
    assert all(position in found for position, found in enumerate(windows))
    assert all(windows[other] == found for found in windows for other in found)
    ends = np.array(sorted({found.stop for found in windows}))
    sizes, batch_ends = np.diff(ends, prepend=0), [batch.stop for batch in steps]
    assert ends[-1] == num_samples and widest_window(steps, batch_size, window) == sizes.max()
    if window == 0:
        assert len(ends) == 1
    elif batch_size >= window:
        assert set(batch_ends) <= set(ends)
        assert (sizes >= min(window, batch_ends[0] - 1)).all() and (sizes < 2 * window + 1).all()
    else:
        assert set(ends) <= set(batch_ends)
        assert (sizes >= min(window // 2, num_samples)).all()


@pytest.mark.parametrize("batch_size, window", [(32, 16), (8, 16)])
def test_partners_come_from_the_window_and_each_image_is_decoded_once(batch_size, window):
    dataset = pictures(96)
    config = AugmentConfig(mosaic_nine=0.2, paste_in=0.15, partner_window=window)
    order = epoch_order(len(dataset), 0, 5)
    seen = set()
    for [step] in train_loader(dataset, size_px=32, augment=config, batch_size=batch_size, seed=0, epoch=5, rank=0,
                               world_size=1):
        seen |= set(step.batch.image_ids.tolist())
        end = -(-len(seen) // window) * window
        assert {index for index, _ in dataset.reads} <= set(order[:end].tolist())
    assert seen == set(range(96))
    assert 90 <= len(dataset.reads) == len(set(dataset.reads))  # a few are out of view wherever they occur


def test_without_a_window_partners_come_from_everywhere():
    dataset = pictures(200)
    loader = train_loader(dataset, size_px=32, augment=AugmentConfig(partner_window=0), batch_size=10, seed=0, epoch=5,
                          rank=0, world_size=1)
    next(iter(loader))
    assert len({index for index, _ in dataset.reads}) > 30


def test_an_image_is_shown_in_several_mosaics():
    dataset = pictures(64)
    config = AugmentConfig(mixup=0, partner_window=16)
    for _ in train_loader(dataset, size_px=32, augment=config, batch_size=16, seed=0, epoch=0, rank=0, world_size=1,
                          decoded_bytes=0):
        continue
    shown = np.bincount([index for index, _ in dataset.reads])
    assert shown.min() >= 1 and 3 <= shown.mean() <= 4  # of four tiles, some are out of view


@pytest.mark.parametrize("side_px", [64, 63])
def test_what_is_kept_does_not_change_what_is_read(side_px):
    requests = [(0, 2), (1, 1), (0, 1), (0, 8), (2, 4), (1, 2), (0, 2), (2, 4)]
    dataset = Pictures([(side_px, 48)] * 3)
    forgetful, mindful = DecodedSamples(dataset, 64, 0), DecodedSamples(dataset, 64, 1e9)
    for index, reduce in requests:
        one, other = forgetful.read(index, reduce), mindful.read(index, reduce)
        assert np.array_equal(one.image, other.image)
        assert one.image.shape == (-(-side_px // reduce), 48 // reduce, 3)
    assert (forgetful.num_decoded, mindful.num_decoded) == (len(requests), 3)
    assert forgetful.num_bytes == 0


def test_kept_samples_are_bounded_and_the_least_used_go():
    dataset = Pictures([(10, 10)] * 5)
    decoded = DecodedSamples(dataset, 10, 3 * 300)
    for index in (0, 1, 2, 0, 3, 0, 1):  # 1 went when 3 came
        decoded.read(index)
        assert decoded.num_bytes <= 900
    assert [index for index, _ in dataset.reads] == [0, 1, 2, 3, 1]
    with pytest.raises(ValueError, match="read-only"):
        decoded.read(0).image[0] = 0


def test_large_images_are_decoded_no_larger_than_they_can_be_shown():
    dataset = Pictures([(4000, 3000)] * 8)
    dataset.read = lambda index, reduce: Pictures.read(dataset, index, reduce * 16)  # quick; only `reduce` counts
    for _ in train_loader(dataset, size_px=64, augment=AugmentConfig(mixup=0), batch_size=8, seed=0, epoch=0, rank=0,
                          world_size=1):
        continue
    assert {reduce for _, reduce in dataset.reads} == {8 * 16}


# --- image size and weights of the epoch ------------------------------------------------------------------


def test_multi_scale_is_one_size_per_global_batch():
    sizes = []
    for rank in range(2):
        steps = train_loader(pictures(23), size_px=64, augment=AugmentConfig(), batch_size=2, seed=0, epoch=0,
                             rank=rank, world_size=2, multi_scale=0.5, stride_px=16)
        sizes.append([tuple(step.batch.images.shape[2:]) for [step] in steps])
    assert sizes[0] == sizes[1] and len(set(sizes[0])) > 2
    assert all(height == width and height in (32, 48, 64, 80, 96) for height, width in sizes[0])


@given(st.integers(1, 40), st.floats(0, 0.9), st.sampled_from([8, 32, 64]), st.integers(0, 9), st.integers(0, 99))
def test_step_sizes_are_multiples_of_the_stride(strides, multi_scale, stride_px, epoch, step):
    size_px = strides * stride_px
    drawn = step_size_px(size_px, multi_scale, stride_px, 0, epoch, step)
    assert drawn % stride_px == 0 and drawn > 0
    assert size_px * (1 - multi_scale) - 1e-9 <= drawn <= size_px * (1 + multi_scale) + 1e-9
    assert multi_scale or drawn == size_px


def test_step_sizes_reach_the_whole_range():
    assert {step_size_px(640, 0.5, 32, 0, 0, step) for step in range(400)} == set(range(320, 961, 32))


def test_weighted_order():
    weights = np.array([0.0, 1.0, 3.0])
    orders = np.array([epoch_order(3, 7, epoch, weights) for epoch in range(2000)])
    assert np.bincount(orders.ravel(), minlength=3) / orders.size == pytest.approx([0, 0.25, 0.75], abs=0.02)
    np.testing.assert_array_equal(epoch_order(3, 7, 4, weights), orders[4])
    np.testing.assert_array_equal(epoch_order(3, 7, 4, 10 * weights), orders[4])
    with pytest.raises(ValueError, match="3 weights for 4 samples"):
        epoch_order(4, 0, 0, weights)


def test_rare_and_badly_found_classes_weigh_more():
    counts = np.array([[4, 0, 0], [4, 1, 0], [0, 1, 0], [0, 0, 0]])
    classes = class_weights(counts)
    assert classes.sum() == pytest.approx(1) and classes[1] == pytest.approx(4 * classes[0])
    images = image_weights(counts, classes)
    assert images == pytest.approx(np.array([4, 8, 4, 0]) * classes[0])
    weighted = class_weights(counts, ap=np.array([0.5, 0.0, np.nan]))
    assert weighted / classes == pytest.approx([0.25, 1, 1])
    assert image_weights(counts, class_weights(counts, ap=np.ones(3))).tolist() == [1, 1, 1, 1]


# --- evaluation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 3, 8])
@pytest.mark.parametrize("rectangular", [False, True])
def test_evaluation_order_runs_in_step_with_the_batches(world_size, rectangular):
    dataset = Pictures(np.random.default_rng(1).integers(20, 60, (23, 2)))
    seen = []
    for rank in range(world_size):
        share = {"batch_size": 4, "rank": rank, "world_size": world_size, "rectangular": rectangular}
        ids = [i for batch in evaluation_loader(dataset, size_px=64, stride_px=16, **share)
               for i in batch.image_ids.tolist()]
        assert ids == evaluation_order(dataset, **share).tolist()
        seen += ids
    assert sorted(seen) == list(range(23))


def test_canvas_is_derived_before_sides_are_cut_to_whole_pixels():
    """482 of 640 px, shown at 64: 48.2 px are 1.506 strides of 32, and with half a stride more than 2: so 3."""
    assert canvas_hw([(482, 640)], 64, 32) == (96, 96)
    assert canvas_hw([(480, 640), (320, 640)], 64, 32) == (64, 96)


def test_rectangular_batches_are_similar_padded_little_and_at_the_same_scale():
    dataset = Pictures([(40, 80), (80, 40), (80, 80), (41, 80), (80, 42), (79, 80), (30, 90), (90, 31)])
    batches = list(evaluation_loader(dataset, size_px=64, batch_size=2, rank=0, world_size=1, rectangular=True,
                                     stride_px=16))
    assert [batch.image_ids.tolist() for batch in batches] == [[6, 0], [3, 5], [2, 4], [1, 7]]
    assert [tuple(batch.images.shape[2:]) for batch in batches] == [(48, 80), (80, 80), (80, 80), (80, 48)]
    for batch in batches:
        for image_id, fit in zip(batch.image_ids.tolist(), batch.letterboxes, strict=True):
            size_hw = dataset.size_hw(image_id)
            assert fit.original_size_hw == size_hw and fit.scale == pytest.approx(64 / max(size_hw))
            corners = fit.to_letterboxed(np.array([[0, 0, *size_hw[::-1]]]))[0]
            assert (corners[:2] >= 0).all() and (corners[2:] <= np.array(batch.images.shape[:1:-1])).all()
