"""The order in blocks of shards, and shards that are fetched before they are needed."""

import threading
import time

import faulty_s3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cache import put
from yolov7_ray.data.reading.cache import NodeCache
from yolov7_ray.data.reading.epoch_plan import epoch_plan
from yolov7_ray.data.reading.prefetch import PARALLEL_SHARDS, SHARDS_AHEAD, EpochSchedule, Prefetcher, ShardSchedule
from yolov7_ray.data.reading.shard_windows import epoch_blocks, in_blocks
from yolov7_ray.errors import StorageError

SHARD_ROWS = st.lists(st.integers(1, 12), min_size=1, max_size=20)


def shuffled(shard_rows: list[int], shards_per_block: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng((seed, epoch)).permutation(sum(shard_rows))
    return in_blocks(order, shard_rows, epoch_blocks(len(shard_rows), shards_per_block, seed, epoch))


def shard_numbers(order: np.ndarray, shard_rows: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(shard_rows)), shard_rows)[order]


@settings(max_examples=40, deadline=None)
@given(SHARD_ROWS, st.integers(1, 25), st.integers(0, 9), st.integers(0, 9))
def test_every_sample_once_and_few_shards_at_a_time(shard_rows, shards_per_block, seed, epoch):
    order = shuffled(shard_rows, shards_per_block, seed, epoch)
    assert sorted(order) == list(range(sum(shard_rows)))
    used = shard_numbers(order, shard_rows)
    first = {number: int(np.flatnonzero(used == number)[0]) for number in set(used.tolist())}
    last = {number: int(np.flatnonzero(used == number)[-1]) for number in set(used.tolist())}
    for position in range(len(order)):
        assert sum(first[n] <= position <= last[n] for n in first) <= shards_per_block
    np.testing.assert_array_equal(order, shuffled(shard_rows, shards_per_block, seed, epoch))


@settings(max_examples=40, deadline=None)
@given(SHARD_ROWS, st.integers(1, 25), st.integers(0, 9))
def test_blocks_are_nearly_equal(shard_rows, shards_per_block, seed):
    counts = np.bincount(epoch_blocks(len(shard_rows), shards_per_block, seed, 0))
    assert len(counts) == -(-len(shard_rows) // shards_per_block)
    assert counts.max() <= shards_per_block and counts.max() - counts.min() <= 1


def test_one_block_is_the_order_itself():
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_array_equal(in_blocks(order, [10, 10, 10], epoch_blocks(3, 3, 0, 0)), order)


def test_blocks_mix_shards_anew_each_epoch():
    together = {tuple(np.flatnonzero(epoch_blocks(12, 3, 0, epoch) == 0)) for epoch in range(6)}
    assert len(together) > 4
    used = shard_numbers(shuffled([50] * 12, 3, 0, 0), [50] * 12)[:150]
    assert len(set(used[:20].tolist())) == 3  # mixed within the block, not one shard after the other


def test_draws_with_replacement_keep_their_counts():
    drawn = np.random.default_rng(0).choice(40, 40)
    assert sorted(in_blocks(drawn, [10] * 4, epoch_blocks(4, 2, 0, 0))) == sorted(drawn)


@settings(max_examples=40, deadline=None)
@given(SHARD_ROWS, st.integers(0, 9), st.integers(0, 300))
def test_a_schedule_names_what_is_needed(shard_rows, seed, position):
    order = np.random.default_rng(seed).permutation(sum(shard_rows))
    schedule, used = ShardSchedule(order, shard_rows), shard_numbers(order, shard_rows)
    needed = schedule.needed(position)
    assert set(needed) == set(used[position:].tolist())
    firsts = [used.tolist().index(number) for number in needed]
    assert firsts == sorted(firsts)
    change = schedule.next_change(position)
    assert change > position or change == len(order)
    for between in range(position, min(change, len(order))):
        assert schedule.needed(between) == needed


@settings(max_examples=60, deadline=None)
@given(SHARD_ROWS, st.integers(1, 8), st.integers(1, 9), st.integers(0, 9), st.sampled_from([None, [0], [0, 1, 1]]),
       st.sampled_from([4, 32]), st.booleans())
def test_an_epochs_schedule_names_what_its_steps_need(shard_rows, shards_per_block, batch_size, seed, node_of_part,
                                                      window, large):
    """Of every step the shards of samples and partners, by first use, and those of the next block; never too late."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolov7_ray.data.reading.epoch_plan.LARGE", 0 if large else 1000)
        plan = epoch_plan(shard_rows, batch_size, seed, 1, shuffle_shards=shards_per_block, node_of_part=node_of_part)
    for stream in plan.streams:
        used = shard_numbers(stream.order[:], shard_rows)
        schedule, change = EpochSchedule([stream], window), -1
        for step in range(len(plan.steps)):
            if step >= change:
                needed, change = schedule.needed(step), schedule.next_change(step)
                assert change > step
                first = int(stream.position_bounds[schedule._block(stream, schedule.reaches[0], step)])
                assert needed == list(dict.fromkeys(used[first:].tolist()))[:len(needed)]
            read = {int(used[other]) for place in stream.steps[step] for other in stream.window(place, window)}
            assert read <= set(needed)


def test_the_next_epochs_first_shards_follow_the_last_block():
    plans = [epoch_plan([5] * 200, 8, 0, epoch, shuffle_shards=2) for epoch in range(2)]
    schedule = EpochSchedule(plans[0].streams, 4, lambda: plans[1].streams)
    last = plans[0].streams[0].shards(99).tolist()
    needed = schedule.needed(len(plans[0].steps) - 1)
    assert set(needed[2:4]) == set(last) and len(needed) > SHARDS_AHEAD - 4
    assert set(plans[1].streams[0].shards(0).tolist()) <= set(needed)
    assert SHARDS_AHEAD <= len(schedule.needed(0)) < SHARDS_AHEAD + 4


# --- fetching -------------------------------------------------------------------------------------------


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def faulty(s3_server, monkeypatch):
    with faulty_s3.running(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def fetched(proxy) -> list[str]:
    return [path.rpartition("/")[2] for method, path, _ in proxy.requests if method == "GET"]


def kept(cache: NodeCache) -> set[str]:
    return {path.stem for path in (cache.directory / "shards").glob("*.arrow")}


def test_shards_come_in_the_order_of_need(s3, faulty, tmp_path):
    shards, cache = [put(s3, number) for number in range(6)], NodeCache(tmp_path, limit_bytes=4500)
    prefetcher = Prefetcher(cache, s3)
    prefetcher.want(shards[::-1])
    wait_for(lambda: len(kept(cache)) == 4)
    assert [name[0] for name in sorted(fetched(faulty), reverse=True)] == ["5", "4", "3", "2"]  # what fits, no more
    assert {name[0] for name in fetched(faulty)[:PARALLEL_SHARDS]} == {"5", "4", "3", "2"}
    wait_for(lambda: prefetcher._running == 0)
    prefetcher.want(shards[1:3])  # the next ones take the place of those that are done
    wait_for(lambda: {shards[1].sha256, shards[2].sha256} < kept(cache))
    assert len(fetched(faulty)) == 5 and len(kept(cache)) == 4
    for shard in shards[1:3]:
        assert cache.path(s3, shard).read_bytes() == bytes([int(shard.path[6])]) * 1000
    assert len(fetched(faulty)) == 5


def test_a_later_request_replaces_what_has_not_started(s3, faulty, tmp_path):
    shards, cache = [put(s3, number) for number in range(8)], NodeCache(tmp_path)
    faulty.delay_s = 0.15
    prefetcher = Prefetcher(cache, s3)
    prefetcher.want(shards[:6])
    wait_for(lambda: len(fetched(faulty)) >= 1)
    prefetcher.want(shards[6:])
    wait_for(lambda: prefetcher._running == 0)
    assert {shards[6].sha256, shards[7].sha256} < kept(cache) and len(kept(cache)) < 8


def test_workers_of_a_node_share_the_fetching(s3, faulty, tmp_path):
    shards = [put(s3, number) for number in range(6)]
    faulty.delay_s = 0.02
    workers = [Prefetcher(NodeCache(tmp_path), s3) for _ in range(3)]
    for worker in workers:
        worker.want(shards)
    cache = NodeCache(tmp_path)
    for shard in shards:  # a reader waits for what is on its way, and fetches it itself if no one does
        cache.path(s3, shard)
    wait_for(lambda: not any(worker._running for worker in workers))
    assert sorted(fetched(faulty)) == [f"{number}.arrow" for number in range(6)]


def test_faults_are_left_to_the_reader(s3, faulty, tmp_path, monkeypatch):
    monkeypatch.setattr("yolov7_ray.storage.retry.RETRY_FOR_S", 0.1)
    shards, cache = [put(s3, number) for number in range(2)], NodeCache(tmp_path)
    faulty.inject("busy", part="0.arrow")
    prefetcher = Prefetcher(cache, s3)
    prefetcher.want(shards)
    wait_for(lambda: prefetcher._running == 0)
    assert kept(cache) == {shards[1].sha256}
    with pytest.raises(StorageError, match="S3 answers 503"):
        cache.path(s3, shards[0])


def test_local_shards_are_verified_ahead(tmp_path, monkeypatch):
    uri = str(tmp_path / "d")
    shards, cache = [put(uri, number) for number in range(3)], NodeCache(tmp_path / "cache", limit_bytes=1)
    prefetcher = Prefetcher(cache, uri)
    prefetcher.want(shards)
    wait_for(lambda: prefetcher._running == 0)
    assert len(list((tmp_path / "cache/verified").iterdir())) == 3
    assert not any(thread.name == "prefetch" for thread in threading.enumerate() if thread.is_alive())
