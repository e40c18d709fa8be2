"""Plans of epochs: every sample once whatever the nodes, few shards per node, and an interrupted epoch finished."""

import pickle
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yolov7_ray.data.reading import epoch_plan as planning
from yolov7_ray.data.reading.epoch_plan import epoch_plan
from yolov7_ray.data.reading.order import epoch_order, equal_parts
from yolov7_ray.data.reading.shard_windows import epoch_blocks, in_blocks
from yolov7_ray.train.loop import nodes_of_parts

from test_order import pictures
from yolov7.images.config import AugmentConfig
from yolov7_ray.data.reading.dataset import train_loader

SHARD_ROWS = st.lists(st.integers(0, 12), min_size=1, max_size=20).filter(any)
NODES = st.lists(st.integers(0, 3), min_size=1, max_size=9).map(lambda nodes: nodes_of_parts(nodes, len(nodes)))


def samples(plan) -> list[int]:
    return [plan.sample(position) for position in range(plan.steps.stop)]


@pytest.fixture
def large(monkeypatch):
    """Orders of any length are computed by index."""
    monkeypatch.setattr(planning, "LARGE", 0)


@settings(max_examples=200, deadline=None)
@given(SHARD_ROWS, st.integers(1, 20), st.integers(0, 5), st.none() | NODES, st.none() | st.integers(1, 6),
       st.booleans())
def test_every_sample_once(shard_rows, batch_size, epoch, node_of_part, shuffle_shards, large):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "LARGE", 0 if large else 1000)
        plan, same = (epoch_plan(shard_rows, batch_size, 1, epoch, node_of_part=node_of_part,
                                 shuffle_shards=shuffle_shards) for _ in range(2))
    num_samples = sum(shard_rows)
    assert samples(plan) == samples(same) and sorted(samples(plan)) == list(range(num_samples))
    assert len(plan.steps) == -(-num_samples // batch_size)
    places = [(stream.line, id(stream), place) for stream, place in map(plan.locate, range(num_samples))]
    assert len(set(places)) == num_samples == sum(len(stream.order) for stream in plan.streams)
    parts = len(node_of_part or [0])
    for batch in plan.steps:
        for part, node in zip(equal_parts(batch, parts), node_of_part or [0], strict=True):
            assert all(plan.locate(position)[0] is plan.streams[node] for position in part)
    for part, node in enumerate(node_of_part or [0]):
        assert [stream for stream in plan.streams_of([part], parts)
                if stream is not plan.streams[node]] == []


@pytest.mark.parametrize("nodes", [None, [0, 0, 1, 1]])
def test_epochs_and_seeds_differ(large, nodes):
    orders = {tuple(samples(epoch_plan([10] * 6, 8, seed, epoch, node_of_part=nodes)))
              for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("shuffle_shards", [None, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_small_orders_are_numpys_as_ever(shuffle_shards, weighted):
    rows = [7, 3, 9, 11, 1]
    weights = np.arange(31) if weighted else None
    expected = in_blocks(epoch_order(31, 5, 2, weights), rows, epoch_blocks(5, shuffle_shards or 5, 5, 2))
    assert samples(epoch_plan(rows, 4, 5, 2, shuffle_shards=shuffle_shards, weights=weights)) == expected.tolist()


def test_a_known_order():
    """Runs go on with it: it must not change."""
    assert samples(epoch_plan([3, 3, 2], 4, 0, 0)) == np.random.default_rng((0, 0)).permutation(8).tolist()
    plan = epoch_plan([40] * 5, 8, 0, 0, node_of_part=[0, 1])
    assert samples(plan)[:16] == [189, 173, 138, 131, 0, 148, 18, 155, 93, 181, 161, 192, 62, 30, 51, 9]


def test_nodes_with_more_parts_read_more():
    plan = epoch_plan([10] * 40, 8, 0, 0, node_of_part=[0, 0, 0, 1])
    assert [len(stream.order) for stream in plan.streams] == [300, 100]


@pytest.mark.parametrize("shuffle_shards", [None, 3])
def test_draws_by_index_follow_the_weights(large, shuffle_shards):
    rows = [100, 300, 50, 50, 500]
    weights = np.repeat([1.0, 0, 4, 2, 1], rows)
    plan = epoch_plan(rows, 50, 0, 0, weights=weights, shuffle_shards=shuffle_shards)
    drawn = np.concatenate([epoch_plan(rows, 50, 0, epoch, weights=weights, shuffle_shards=shuffle_shards)
                            .streams[0].order[:] for epoch in range(20)])
    counts = np.histogram(drawn, np.concatenate([[0], np.cumsum(rows)]))[0]
    assert len(drawn) == 20_000
    assert counts / len(drawn) == pytest.approx(np.array([100, 0, 200, 100, 500]) / 900, abs=0.015)
    for block in range(len(plan.streams[0].bounds) - 1):
        start, stop = plan.streams[0].position_bounds[block:block + 2]
        used = np.searchsorted(np.cumsum(rows), plan.streams[0].order[start:stop], side="right")
        assert set(used.tolist()) <= set(plan.streams[0].shards(block).tolist())
    with pytest.raises(ValueError, match="2 weights for 1000 samples"):
        epoch_plan(rows, 50, 0, 0, weights=np.ones(2))


# --- nodes ----------------------------------------------------------------------------------------------


def test_sixty_four_nodes_read_a_sixty_fourth_each():
    """10,000 shards of equal bytes, as a node reads them: whole. Batches of 8 workers a node, epochs unlike."""
    rows = np.random.default_rng(0).integers(90, 111, 10_000).tolist()
    node_of_part, reads = np.repeat(np.arange(64), 8), []
    for epoch in range(2):
        plan = epoch_plan(rows, 4096, 0, epoch, node_of_part=node_of_part)
        seen, shards = np.concatenate([stream.order[:] for stream in plan.streams]), []
        assert np.array_equal(np.sort(seen), np.arange(sum(rows)))
        for stream in plan.streams:
            used = np.unique(np.searchsorted(np.cumsum(rows), stream.order[:], side="right"))
            assert set(used.tolist()) == set(stream.shards(0).tolist())
            shards.append(set(used.tolist()))
        num_bytes = np.array([sum(rows[number] for number in node) for node in shards])
        assert num_bytes.max() <= 1.05 * sum(rows) / 64 and num_bytes.sum() <= 1.01 * sum(rows)
        reads.append(shards[0])
    assert len(reads[0] & reads[1]) < 20  # 2.4 by chance


@pytest.mark.parametrize("window", [0, 4, 32])
def test_partners_are_the_nodes_own(window):
    plan = epoch_plan([10] * 40, 16, 0, 0, node_of_part=[0, 1, 0, 1])
    rows = [{int(index) for index in stream.order[:]} for stream in plan.streams]
    assert not rows[0] & rows[1]
    for position in range(400):
        stream, place = plan.locate(position)
        found = stream.window(place, window)
        assert place in found and 0 <= found.start < found.stop <= len(stream.order)
        assert len(found) == {0: 200, 4: 4, 32: 32}[window] or window == 32 and len(found) >= 16


def ids(dataset, node_of_part, world_size, first_step=0, last_step=None, parts=4, batch_size=10) -> list[list[int]]:
    """Of each rank: the images of these steps."""
    found = []
    for rank in range(world_size):
        loader = train_loader(dataset, size_px=32, augment=AugmentConfig(mosaic=0, mixup=0), batch_size=batch_size,
                              seed=0, epoch=3, rank=rank, world_size=world_size, parts=parts, first_step=first_step,
                              node_of_part=node_of_part)
        steps = [parts for parts, _ in zip(loader, range((last_step or 999) - first_step))]
        found.append([i for parts in steps for part in parts for i in part.batch.image_ids[:part.num_samples].tolist()])
    return found


def sharded_pictures(count: int, num_shards: int):
    dataset = pictures(count)
    dataset.shard_rows = [len(part) for part in np.array_split(np.arange(count), num_shards)]
    dataset.split = SimpleNamespace(shards=list(range(num_shards)))
    return dataset


@pytest.mark.parametrize(("workers", "parts"), [(4, 4), (2, 4), (3, 4), (1, 4), (6, 8)])
def test_an_epoch_is_finished_as_it_was_dealt_by_whatever_workers(workers, parts):
    """Begun by four workers on two nodes, interrupted after two of seven steps."""
    dataset, dealt = sharded_pictures(67, 9), nodes_of_parts(["a", "a", "b", "b"], 4)
    before = ids(dataset, dealt, 4, last_step=2)
    after = ids(dataset, dealt, workers, first_step=2, parts=parts)
    assert sorted(sum(before, []) + sum(after, [])) == list(range(67))
    whole = ids(dataset, dealt, 4, first_step=2)
    assert sorted(sum(whole, [])) == sorted(sum(after, []))


def test_each_node_reads_its_own_shards_alone():
    dataset, dealt = sharded_pictures(640, 40), nodes_of_parts(["a", "a", "b", "b"], 4)
    read = []
    for ranks in ([0, 1], [2, 3]):
        dataset.reads.clear()
        for rank in ranks:
            list(train_loader(dataset, size_px=32, augment=AugmentConfig(partner_window=16), batch_size=32, seed=0,
                              epoch=0, rank=rank, world_size=4, node_of_part=dealt))
        read.append({index // 16 for index, _ in dataset.reads})
    assert len(read[0] | read[1]) == 40 and len(read[0] & read[1]) <= 1


def test_an_empty_part_reads_from_its_own_node():
    """Three images a step for four parts: the last part is empty, its node the one that made the second."""
    dataset, dealt = sharded_pictures(30, 30), [0, 1, 0, 1]
    list(train_loader(dataset, size_px=32, augment=AugmentConfig(mosaic=0, mixup=0), batch_size=3, seed=0, epoch=0,
                      rank=3, world_size=4, node_of_part=dealt))
    plan = epoch_plan(dataset.shard_rows, 3, 0, 0, node_of_part=dealt)
    assert {index for index, _ in dataset.reads} <= set(plan.streams[1].order[:].tolist())


def test_weights_with_nodes_are_refused():
    with pytest.raises(ValueError, match="leave out weights or node_of_part"):
        epoch_plan([4, 4], 2, 0, 0, weights=np.ones(8), node_of_part=[0, 1])


@pytest.mark.parametrize(("nodes", "parts", "expected"), [
    (["a", "a", "b", "b"], 4, [0, 0, 1, 1]), (["b", "a", "b"], 3, [0, 1, 0]), (["a", "b"], 5, [0, 0, 0, 1, 1]),
    ([""], 3, [0, 0, 0]),
])
def test_parts_belong_to_the_nodes_of_their_ranks(nodes, parts, expected):
    assert nodes_of_parts(nodes, parts) == expected


# --- size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"shuffle_shards": 20}, {"node_of_part": [0, 0, 1, 1]}],
                         ids=["shuffled", "in blocks", "on two nodes"])
def test_a_large_plan_is_small(settings):
    rows = [1000] * 2000
    tracemalloc.start()
    try:
        plan = epoch_plan(rows, 256, 0, 0, **settings)
        for position in range(0, 2_000_000, 19_001):
            assert 0 <= plan.sample(position) < 2_000_000
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert len(pickle.dumps(plan)) < 1e6


def test_a_large_weighted_plan_sends_half_of_its_memory():
    plan = epoch_plan([1000] * 2000, 256, 0, 0, weights=np.ones(2_000_000))
    assert 0 <= plan.sample(7) < 2_000_000
    assert len(pickle.dumps(plan)) < 9e6
