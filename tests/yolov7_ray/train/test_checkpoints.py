"""Checkpoints are complete or absent, a run resumes from the newest complete one, the best and newest are kept."""

import json
from pathlib import Path

import pytest
import torch

from yolov7.architectures.family import architecture
from yolov7.training.config import EMAConfig
from yolov7.training.config import OptimizerConfig
from yolov7.training.schedule import Schedule
from yolov7.training.state import TrainState
from yolov7_ray import storage
from yolov7_ray.errors import JobError, StorageError
from yolov7_ray.train.checkpoints import RECORD, checkpoint_name, Checkpoints


@pytest.fixture(scope="module")
def state() -> TrainState:
    torch.manual_seed(0)
    schedule = Schedule(OptimizerConfig(), 10, 100, 8, 8)
    return TrainState.build(architecture("yolov7-tiny").scaled(depth=0.5, width=0.25), ["a"], schedule, EMAConfig())


def marked(state: TrainState, epoch: int, step: int = 0) -> TrainState:
    """The state at a position that is encoded in its weights."""
    state.epoch, state.step = epoch, step
    with torch.no_grad():
        next(state.model.parameters()).fill_(epoch + step / 1000)
    return state


def mark(state: TrainState) -> float:
    return next(state.model.parameters()).flatten()[0].item()


def save(checkpoints: Checkpoints, state: TrainState, score: float = -1.0) -> None:
    checkpoints.save(state.snapshot(), {"kind": "train"}, {"epoch": state.epoch}, score)


def test_a_run_resumes_from_the_newest(state, place):
    run = storage.join(place, "run")
    checkpoints = Checkpoints(run, keep_best=1)
    assert checkpoints.restore(state) is None
    for epoch, step in ((1, 0), (1, 250), (2, 0), (2, 40)):
        save(checkpoints, marked(state, epoch, step))
    checkpoints.wait()
    marked(state, 9)
    assert Checkpoints(run, 1).restore(state) == "checkpoint-epoch-0002-step-000040" == checkpoint_name(2, 40)
    assert (state.epoch, state.step) == (2, 40) and mark(state) == pytest.approx(2.04)


def test_the_snapshot_holds_the_state_at_the_time_of_saving(state, tmp_path):
    checkpoints = Checkpoints(str(tmp_path), 1)
    save(checkpoints, marked(state, 1))
    marked(state, 7)
    checkpoints.wait()
    checkpoints.restore(state)
    assert mark(state) == 1 and state.epoch == 1


def test_the_best_and_the_newest_are_kept(state, tmp_path):
    checkpoints = Checkpoints(str(tmp_path), keep_best=2)
    for epoch, score in enumerate((0.5, 0.1, 0.4, 0.2, 0.3), 1):
        save(checkpoints, marked(state, epoch), score)
        save(checkpoints, marked(state, epoch, 10))
    checkpoints.wait()
    kept = {checkpoint_name(1), checkpoint_name(3), checkpoint_name(5), checkpoint_name(5, 10)}
    assert set(checkpoints.names()) == checkpoints.complete == kept == {path.name for path in tmp_path.iterdir()}


def test_checkpoints_beyond_epoch_9999_are_the_newest(state, tmp_path):
    checkpoints = Checkpoints(str(tmp_path), keep_best=1)
    places = [(9998, 0), (9999, 0), (9999, 5), (10_000, 0), (10_001, 0), (10_001, 1_000_000)]
    for epoch, step in places:
        save(checkpoints, marked(state, epoch, step), score=0.5 if epoch == 9998 else 0.1)
    checkpoints.wait()
    kept = ["checkpoint-epoch-9998", "checkpoint-epoch-10001", "checkpoint-epoch-10001-step-1000000"]
    assert Checkpoints(str(tmp_path), 1).names() == kept == sorted(checkpoints.complete, key=kept.index)
    assert Checkpoints(str(tmp_path), 1).newest() == Checkpoints(str(tmp_path), 1).restore(state) == kept[-1]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "record"])
def test_a_damaged_checkpoint_is_skipped(state, tmp_path, damage):
    logged = []
    checkpoints = Checkpoints(str(tmp_path), 1, logged.append)
    for epoch in (1, 2):
        save(checkpoints, marked(state, epoch))
    checkpoints.wait()
    file = tmp_path / checkpoint_name(2) / (RECORD if damage == "record" else "state.pt")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(bytes(data[:-9]) if damage == "truncated" else b"{" if damage == "record" else bytes(data))
    assert Checkpoints(str(tmp_path), 1, logged.append).restore(state) == checkpoint_name(1)
    assert mark(state) == 1 and len(logged) == 1 and "checkpoint-epoch-0002 is damaged" in logged[0]


def test_if_all_are_damaged_nothing_is_overwritten(state, tmp_path):
    checkpoints = Checkpoints(str(tmp_path), 1, lambda line: None)
    save(checkpoints, marked(state, 1))
    checkpoints.wait()
    (tmp_path / checkpoint_name(1) / "ema.safetensors").write_bytes(b"?")
    with pytest.raises(JobError, match="every checkpoint is damaged: checkpoint-epoch-0001"):
        checkpoints.restore(state)


def test_without_its_record_there_is_no_checkpoint(state, tmp_path):
    checkpoints = Checkpoints(str(tmp_path), 1)
    save(checkpoints, marked(state, 1))
    checkpoints.wait()
    half = tmp_path / checkpoint_name(2)
    half.mkdir()
    (half / "state.pt").write_bytes(b"half")
    assert checkpoints.names() == [checkpoint_name(1)]
    record = json.loads((tmp_path / checkpoint_name(1) / RECORD).read_text())
    assert {"model.safetensors", "ema.safetensors", "state.pt", "spec.json", "metrics.json"} == set(record["files"])


def test_a_failed_write_is_logged_and_fatal_only_at_the_end(state, tmp_path):
    logged, blocked = [], tmp_path / "file"
    blocked.write_text("not a directory")
    checkpoints = Checkpoints(str(blocked), 1, logged.append)
    save(checkpoints, marked(state, 1))
    checkpoints.wait(fatal=False)
    assert len(logged) == 1 and "could not be saved" in logged[0] and not checkpoints.busy
    save(checkpoints, state)
    with pytest.raises((StorageError, OSError)):
        checkpoints.wait()
    assert Path(blocked).read_text() == "not a directory"
