"""Checkpoints are complete or absent, a run resumes from the newest complete one, the best and newest are kept."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from yolov7.architectures.family import architecture
from yolov7.checkpoints import weights as weights_module
from yolov7.training.config import EMAConfig
from yolov7.training.config import OptimizerConfig
from yolov7.training.schedule import Schedule
from yolov7.training.state import TrainState
from yolov7_ray import storage
from yolov7_ray.errors import JobError, StorageError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.train.checkpoint_policy import CheckpointPolicy
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


def test_one_that_others_need_stays_beside_the_best_and_the_newest(state, tmp_path):
    checkpoints = Checkpoints(str(tmp_path), keep_best=1, kept=checkpoint_name(1))
    for epoch, score in enumerate((0.1, 0.9, 0.3, 0.2, 0.2), 1):
        save(checkpoints, marked(state, epoch), score)
    checkpoints.wait()
    assert checkpoints.names() == [checkpoint_name(epoch) for epoch in (1, 2, 4, 5)]


def test_what_comes_after_a_checkpoint_is_discarded_by_number(tmp_path):
    names = [checkpoint_name(*place) for place in [(9998, 0), (9999, 0), (9999, 5), (10_000, 0), (10_000, 1_000_000)]]
    for name in names:
        storage.write_json(storage.join(str(tmp_path), name, "checkpoint.json"), {"score": 0, "files": {}})
    checkpoints = Checkpoints(str(tmp_path), 1)
    checkpoints.discard_after(names[3])
    assert checkpoints.names() == names[:4]
    checkpoints.discard_after(names[1])
    assert checkpoints.names() == names[:2]


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


# --- no space -------------------------------------------------------------------------------------------


def no_space_in(patch: pytest.MonkeyPatch, directory: Path) -> None:
    """Files of safetensors in this directory fail as on a full disk, by the exception that the library raises."""
    real = weights_module.save_file

    def save_file(tensors: dict, path: Path, metadata: dict | None = None) -> None:
        if Path(path).is_relative_to(directory):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        real(tensors, path, metadata=metadata)

    patch.setattr(weights_module, "save_file", save_file)


def test_a_full_temporary_directory_is_no_matter_where_the_storage_is_local(state, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    no_space_in(monkeypatch, tmp_path / "temporary")
    checkpoints = Checkpoints(str(tmp_path / "run"), 1)
    checkpoints.rehearse(state.snapshot(), {})
    save(checkpoints, marked(state, 1))
    checkpoints.wait()
    assert checkpoints.restore(state) == checkpoint_name(1)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [checkpoint_name(1)], "nothing is left over"


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_full_temporary_directory_does_not_end_training(state, place, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    no_space_in(monkeypatch, tmp_path)
    logged, checkpoints = [], Checkpoints(storage.join(place, "run"), 1)
    checkpoints.log = logged.append
    save(checkpoints, marked(state, 1))
    checkpoints.wait(fatal=False)
    assert len(logged) == 1 and "a checkpoint could not be saved (" in logged[0]
    assert "the disk is full; free some space" in logged[0] and logged[0].endswith("training goes on")


def test_a_run_that_cannot_be_saved_does_not_start(state, tmp_path, monkeypatch):
    no_space_in(monkeypatch, tmp_path)
    with pytest.raises(JobError, match="a checkpoint cannot be saved .*the disk is full; free .*has not started"):
        Checkpoints(str(tmp_path), 1).rehearse(state.snapshot(), {})
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_really_full(state, tmp_path):
    """On a filesystem of 64 KB; torch says only that it failed to write."""
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a small filesystem")
    try:
        with pytest.raises(JobError, match="a checkpoint cannot be saved .*the disk is full"):
            Checkpoints(str(tmp_path), 1).rehearse(state.snapshot(), {})
        for error in (SafetensorError("Error while serializing"), RuntimeError("file write failed")):
            assert isinstance(storage.write_failure(error, str(tmp_path), 1 << 20), storage.DiskFull)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# --- rows of skipped updates ----------------------------------------------------------------------------


class Requests:
    """The Reporter of a run in which a save is requested or not."""

    requested = False

    def save_requested(self) -> bool:
        return self.requested

    def saved(self, line: str) -> None:
        self.requested = False


def after_update(policy: CheckpointPolicy, step: int, skipped_in_a_row: int) -> None:
    marked(policy.state, 0, step)
    policy.state.skipped_in_a_row = skipped_in_a_row
    policy.after_update()
    policy.checkpoints.wait()


@pytest.fixture
def policy(state, tmp_path) -> CheckpointPolicy:
    spec = validate({"kind": "train", "dataset": "d", "epochs": 10, "checkpoint": {"every_updates": 1}})
    yield CheckpointPolicy(spec, state, Checkpoints(str(tmp_path), 1, print), Requests())
    state.skipped_in_a_row = state.skipped_updates = 0


def test_nothing_is_saved_in_a_row_of_skipped_updates(policy):
    for step, skipped in ((1, 0), (2, 0), (3, 1), (4, 2)):
        after_update(policy, step, skipped)
    marked(policy.state, 1)
    policy.after_epoch({}, None, False)
    assert policy.checkpoints.names() == [checkpoint_name(0, 1), checkpoint_name(0, 2)]
    policy.reporter.requested = True
    after_update(policy, 5, 3)
    assert policy.reporter.requested, "the request waits for the end of the row"
    after_update(policy, 6, 0)
    assert not policy.reporter.requested and policy.checkpoints.newest() == checkpoint_name(0, 6)


def test_a_run_ends_with_a_checkpoint_even_in_a_row_of_skipped_updates(policy):
    policy.state.skipped_in_a_row = 2
    marked(policy.state, policy.spec.epochs)
    policy.after_epoch({}, None, True)
    policy.checkpoints.wait()
    assert policy.checkpoints.newest() == checkpoint_name(policy.spec.epochs)


def test_a_run_rolls_back_behind_the_last_update_that_was_finite(state, tmp_path):
    """As an earlier version wrote them: within the row, too; the last finite update may itself be the bad one."""
    checkpoints = Checkpoints(str(tmp_path), keep_best=9)
    for epoch, skipped in ((1, 0), (2, 0), (3, 4), (4, 7)):
        state.skipped_in_a_row = skipped
        save(checkpoints, marked(state, epoch), score=epoch)
    checkpoints.wait()
    assert checkpoints.restore_good(state, last_good=201) == checkpoint_name(2)
    assert checkpoints.restore_good(state, last_good=200) == checkpoint_name(1) and state.skipped_in_a_row == 0
    assert checkpoints.restore_good(state, last_good=100) == checkpoint_name(2), "none is proven: the newest"
    checkpoints.discard_after(checkpoint_name(1))
    assert Checkpoints(str(tmp_path), 1).names() == [checkpoint_name(1)] == sorted(checkpoints.complete)


def test_without_a_good_checkpoint_there_is_nothing_to_roll_back_to(state, tmp_path):
    checkpoints = Checkpoints(str(tmp_path), keep_best=9)
    state.skipped_in_a_row = 1
    save(checkpoints, marked(state, 1))
    checkpoints.wait()
    assert checkpoints.restore_good(state, last_good=500) is None
    state.skipped_in_a_row = 0
