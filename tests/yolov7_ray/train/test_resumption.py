"""A resumed run goes on with what it has learnt with; a job that says otherwise is refused before anything happens."""

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import ingest_here, make_yolo
from training_jobs import train_job
from yolov7.training.schedule import Schedule
from yolov7.training.state import TrainState
from yolov7_ray.data.manifest import load_manifest
from yolov7_ray.data.reading.dataset import open_splits, train_loader
from yolov7_ray.data.sources.spec import ShapesSource, YoloSource
from yolov7_ray.errors import JobError
from yolov7_ray.jobs import execution
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.train.checkpoints import Checkpoints
from yolov7_ray.train.spec import BETWEEN_EPOCHS, MAY_CHANGE, TrainSpec
from yolov7_ray.train.starting_point import dataset_of, record_start


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> tuple[str, str]:
    """Two datasets of 24 images with the same classes and different content."""
    root = tmp_path_factory.mktemp("data")
    for name, seed in (("one", 0), ("other", 1)):
        source = ShapesSource(format="shapes", splits={"train": 24, "val": 4}, image_size_px=64, seed=seed)
        ingest_here(source, str(root / name))
    return str(root / "one"), str(root / "other")


class Started(Exception):
    """Ray would have been started."""


@pytest.fixture
def run(datasets, tmp_path, monkeypatch):
    """A run of 24 images in batches of 4 with one checkpoint; resumed with other values."""

    def start_ray(*arguments):
        raise Started

    monkeypatch.setattr(execution.local_ray, "start_ray", start_ray)
    return Run(datasets, tmp_path / "runs")


class Run:
    def __init__(self, datasets: tuple[str, str], runs: Path):
        self.dataset, self.other = datasets
        self.directory, self.job = runs / "r", train_job(self.dataset, str(runs), batch_size=4, nominal_batch_size=4)
        self.spec: TrainSpec = validate(self.job)
        record_start(self.spec, str(self.directory), load_manifest(self.dataset))

    def save(self, epoch: int, step: int) -> None:
        """A checkpoint at this position."""
        schedule = Schedule(self.spec.optimizer, 2, 6, 4, 4)
        state = TrainState.build(self.spec.build_architecture(), ["a"], schedule, self.spec.ema)
        state.epoch, state.step = epoch, step
        checkpoints = Checkpoints(str(self.directory), 1)
        checkpoints.save(state.snapshot(), self.job, {})
        checkpoints.wait()

    def files(self) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in self.directory.rglob("*") if path.is_file()}

    def resume(self, changes: dict) -> str:
        """The refusal, which must leave everything as it is; empty if Ray would have been started."""
        before = self.files()
        document = self.spec.model_dump(mode="json")
        for key, value in changes.items():
            section = document
            *sections, last = key.split(".")
            for name in sections:
                section = section[name]
            section[last] = value
        try:
            execution.execute(validate(document), "r", resume=True)
        except JobError as error:
            assert self.files() == before
            return str(error)
        except Started:
            return ""


@pytest.mark.parametrize(("change", "message"), [
    ({"optimizer.algorithm": "adam"}, "has learnt with optimizer.algorithm 'sgd' (the job says 'adam')"),
    ({"augment.mixup": 0.5}, "has learnt with augment.mixup 0.05 (the job says 0.5)"),
    ({"loss.box_gain": 0.1}, "has learnt with loss.box_gain 0.05 (the job says 0.1)"),
    ({"data.image_size_px": 96}, "has learnt with data.image_size_px 64 (the job says 96)"),
    ({"data.train_split": "val"}, "has learnt with data.train_split 'train' (the job says 'val')"),
    ({"ema.decay": 0.5}, "has learnt with ema.decay 0.9999 (the job says 0.5)"),
    ({"model.width": 0.5}, "has learnt with model.width 0.25 (the job says 0.5)"),
])
def test_what_changes_what_was_learnt_is_refused_in_one_sentence(run, change, message):
    run.save(1, 0)
    refusal = run.resume(change)
    assert refusal == f"run {run.directory}: {message}; give what it has learnt with, or start a new run from its " \
                      f"weights: --set model.weights={run.directory}"


def test_a_run_that_was_killed_before_its_first_checkpoint_says_that_it_begins_anew(run, capsys):
    assert run.resume({"epochs": 6}) == ""
    assert capsys.readouterr().out.splitlines()[:3] == [
        "r: resuming (train)", "  checkpoints: none yet, so it begins with epoch 1", "  epochs: 2 -> 6"]
    (run.directory / "spec.json").unlink()
    assert run.resume({}) == "" and "checkpoints: none yet" in capsys.readouterr().out
    run.save(1, 0)
    assert run.resume({}) == "" and "checkpoints" not in capsys.readouterr().out


@pytest.mark.parametrize(("change", "printed"), [
    ({"epochs": 6}, ["epochs: 2 -> 6"]),
    ({"optimizer.learning_rate": 0.001, "resources.workers": 2}, ["optimizer.learning_rate: 0.01 -> 0.001",
                                                                 "resources.workers: 1 -> 2"]),
    ({"data.loader_processes": 2}, ["data.loader_processes: nothing -> 2"]),
    ({"checkpoint.every_minutes": 3, "evaluation.every_epochs": 2, "precision": "bf16"},
     ["precision: 'fp32' -> 'bf16'", "evaluation.every_epochs: 1 -> 2", "checkpoint.every_minutes: 10.0 -> 3.0"]),
])
@pytest.mark.parametrize("place", [(1, 0), (0, 3)])
def test_what_may_change_is_printed(run, capsys, place, change, printed):
    run.save(*place)
    assert run.resume(change) == ""
    first, *rest = capsys.readouterr().out.splitlines()
    assert (first, rest[:len(printed)]) == ("r: resuming (train)", [f"  {line}" for line in printed])
    assert not any(" -> " in line for line in rest[len(printed):])


@pytest.mark.parametrize("change", [{"batch_size": 2}, {"batch_size": 12}, {"seed": 7}, {"data.image_weights": True},
                                    {"data.locality": "node"}])
def test_the_order_of_images_changes_between_epochs_alone(run, change):
    [(key, value)] = change.items()
    run.save(1, 0)
    assert run.resume(change) == ""
    run.save(1, 3)
    before = {"batch_size": 4, "seed": 0, "data.image_weights": False, "data.locality": "global"}[key]
    was = repr(before)
    assert run.resume(change) == (
        f"run {run.directory}: is in the middle of an epoch (checkpoint-epoch-0001-step-000003), each image of which comes "
        f"once with {key} {was} (the job says {value!r}); go on with --set {key}={before}, or delete "
        "checkpoint-epoch-0001-step-000003 to go back to checkpoint-epoch-0001")
    assert run.resume({}) == ""


def test_before_the_first_epochs_end_the_way_back_is_the_beginning(run):
    run.save(0, 2)
    run.save(0, 4)
    assert run.resume({"batch_size": 2}).endswith(
        "or delete checkpoint-epoch-0000-step-000004 and checkpoint-epoch-0000-step-000002 to begin anew")


@pytest.mark.parametrize("results", [False, True])
def test_other_data_are_refused_with_and_without_results(run, results):
    run.save(0, 3)
    if results:
        fingerprint = load_manifest(run.dataset).fingerprint
        (run.directory / "results.json").write_text(json.dumps({"dataset_fingerprint": fingerprint}))
    assert "was trained on data with fingerprint" in run.resume({"dataset": run.other})


def test_a_run_of_an_earlier_version_is_compared_with_its_dataset(run, tmp_path):
    run.save(0, 3)
    (run.directory / "data.json").unlink()
    assert "was trained on data with fingerprint" in run.resume({"dataset": run.other})
    assert run.resume({"epochs": 3}) == ""
    spec = json.loads((run.directory / "spec.json").read_text())
    (run.directory / "spec.json").write_text(json.dumps(spec | {"dataset": str(tmp_path / "gone")}))
    assert "which is gone, and whether" in run.resume({})


def test_the_same_data_elsewhere_are_accepted(run, tmp_path):
    (tmp_path / "moved").symlink_to(run.dataset)
    assert run.resume({"dataset": str(tmp_path / "moved")}) == ""


@pytest.mark.parametrize("batch_size", [2, 12])
def test_images_of_an_epoch_that_would_go_on_with_another_batch(run, batch_size):
    """What the refusal prevents: the rest of the epoch by steps, as the loader counts them, misses or repeats images."""
    [train_set] = open_splits(run.dataset, run.spec.data, "train")

    def positions(size: int, first: int) -> int:
        steps = train_loader(train_set, size_px=64, augment=run.spec.augment, batch_size=size, seed=0, epoch=0, rank=0,
                             world_size=1, parts=1, first_step=first, processes=0, weights=None, multi_scale=0,
                             stride_px=32, shuffle_shards=None)
        return sum(part.num_samples for parts in steps for part in parts)

    run.save(0, 2)
    trained = positions(4, 0) - positions(4, 2)
    assert (trained, trained + positions(4, 2)) == (8, 24)
    assert trained + positions(batch_size, 2) != 24
    assert "each image of which comes once" in run.resume({"batch_size": batch_size})


def test_a_resumed_run_decays_weights_as_its_job_says(run):
    decays = []
    for factor in (1, 2):
        optimizer = dataclasses.replace(run.spec.optimizer, weight_decay=0.0005 * factor)
        state = TrainState.build(run.spec.build_architecture(), ["a"], Schedule(optimizer, 2, 6, 4, 4), run.spec.ema)
        if factor == 1:
            state.save(run.directory)
        state.load(run.directory)
        decays.append([group["weight_decay"] for group in state.optimizer.param_groups])
    assert decays[1] == [2 * decay for decay in decays[0]] and max(decays[1]) > 0


def test_every_key_that_may_change_exists():
    document = validate(train_job("d", "r")).model_dump(mode="json")
    for key in (*MAY_CHANGE, *BETWEEN_EPOCHS):
        section = document
        for name in key.split("."):
            assert name in section, key
            section = section[name]


def test_a_run_goes_on_with_the_content_that_its_dataset_had(run, tmp_path):
    root, uri = make_yolo(tmp_path / "raw", 8), str(tmp_path / "grown")
    source = YoloSource(format="yolo", uri=str(root))
    first = ingest_here(source, uri)["fingerprint"]
    grown = Run((uri, run.other), tmp_path / "grown-runs")
    grown.save(0, 3)
    (root / "labels/train/1.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    second = ingest_here(source, uri)["fingerprint"]
    assert grown.resume({}) == (
        f"run {grown.directory}: was trained on data with fingerprint {first[:12]}, {uri} has {second[:12]}; the dataset "
        f"has changed since; go on with what it was: --set dataset={uri}@{first[:12]}, or start a new run from its "
        f"weights: --set model.weights={grown.directory}")
    assert grown.resume({"dataset": f"{uri}@{first[:12]}"}) == ""
    assert dataset_of(grown.spec, str(grown.directory)) == f"{uri}@{first}", "as a worker that starts again reads it"
    [train] = open_splits(dataset_of(grown.spec, str(grown.directory)), grown.spec.data, "train")
    assert train.fingerprint == first
    ingest_here(source, uri, overwrite=True)
    assert "give that dataset, or start a new run" in grown.resume({})
