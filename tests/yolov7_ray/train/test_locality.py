"""`data.locality: node` in the real trainer: nodes found, images counted, an epoch finished as it was dealt."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from nodes import cluster
from test_elastic import EPOCHS, Submission, job
from training_jobs import train, train_job

from yolov7.training.stage_clock import Clock
from yolov7_ray.data.reading.dataset import open_splits
from yolov7_ray.data.reading.epoch_plan import epoch_plan
from yolov7_ray.evaluate.rank_share import Worker
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.train.build import build_state
from yolov7_ray.train.loop import EpochBatches, reading_share

NODE = {"image_size_px": 64, "locality": "node"}


def of_batches(batches) -> list[int]:
    return [i for parts in batches for batch, count in parts for i in batch.image_ids[:count].tolist()]


@pytest.fixture
def one_worker(shapes_dataset, tmp_path):
    """Spec, training split and the only worker of a job that may have two; its global batches have two parts."""
    document = train_job(shapes_dataset, str(tmp_path), data=NODE, resources={"workers": [1, 2]},
                         augment={"mosaic": 0, "mixup": 0})
    spec = validate(document)
    [train_set] = open_splits(spec.dataset, spec.data, "train")
    return spec, train_set, Worker(0, 1, torch.device("cpu"), 0, "fp32", "the only node")


def test_an_epoch_begun_by_two_nodes_is_finished_in_their_order_by_one(one_worker, tmp_path):
    spec, train_set, worker = one_worker
    batches = EpochBatches(spec, train_set, worker, Clock())
    state = build_state(spec, train_set, worker.device)
    state.epoch, state.step, state.node_of_part = 1, 1, [0, 1]
    state.save(tmp_path)
    restored = build_state(spec, train_set, worker.device)
    restored.load(tmp_path)
    plans = [epoch_plan(train_set.shard_rows, 8, spec.seed, 1, node_of_part=nodes) for nodes in ([0, 1], [0, 0])]
    ids = [train_set.truth(index).image_id for index in range(23)]
    expected = [[ids[plan.sample(position)] for position in range(23)] for plan in plans]
    assert expected[0] != expected[1]
    assert of_batches(batches(restored)) == expected[0][8:]
    restored.step = 0  # a new epoch is dealt to the nodes that there are
    assert of_batches(batches(restored)) == expected[1] and restored.node_of_part == [0, 0]


def test_a_share_that_its_cache_cannot_hold_is_said(one_worker):
    spec, train_set, _ = one_worker
    half_gb = sum(shard.num_bytes for shard in train_set.split.shards) / 2e9
    assert reading_share(spec, train_set, [0, 0, 1]) == f"each of 2 nodes reads {half_gb:.3g} GB an epoch"
    data = spec.data.model_copy(update={"cache_gb": 1e-9})
    assert reading_share(spec.model_copy(update={"data": data}), train_set, [0]).endswith(
        "more than its data.cache_gb of 1e-09, and fetches shards again and again: set data.shuffle_shards")


def test_two_workers_of_one_node(ray_session, shapes_dataset, tmp_path, capfd):
    run = Path(train(train_job(shapes_dataset, str(tmp_path), data=NODE, batch_size=7, resources={"workers": 2}),
                     "local")["run"])
    results = json.loads((run / "results.json").read_text())
    assert [(row["num_images"], row["steps"]) for row in results["epochs"]] == [(23, 4), (23, 4)]
    assert "each of 1 node reads" in capfd.readouterr().out
    state = torch.load(run / results["last_checkpoint"] / "state.pt", weights_only=True)
    assert state["node_of_part"] == [0, 0]


@pytest.mark.ray
@pytest.mark.long
def test_a_node_leaves_and_every_epoch_has_every_image(shapes_dataset, tmp_path):
    document, path = job(tmp_path, shapes_dataset) | {"data": NODE}, tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(document))
    with cluster(1, 1) as running, Submission(running, path) as submission:
        submission.wait_for("each of 2 nodes reads")
        submission.wait_for(f"epoch 3/{EPOCHS}")
        running.kill_node(running.nodes[1])
        submission.wait_for("each of 1 node reads")
        submission.wait_for("resumed after epoch")
        for _ in range(4):
            submission.wait_for("images/s")
    [results] = (tmp_path / "runs").glob("*/results.json")
    rows = json.loads(results.read_text())["epochs"]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1)) and len(rows) > 3
    assert all((row["num_images"], row["steps"]) == (23, 3) for row in rows)
