"""A whole run in this process, its actor replaced by one that keeps what it is told."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from runs import ALONE
from training_jobs import train_job

from yolov7_ray import storage
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.train.loop import TrainingRun
from yolov7_ray.train.progress import Reporter
from yolov7_ray.train.progress_bar import Position
from yolov7_ray.train.spec import TrainSpec


class Told:
    """What a worker tells the progress actor."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.positions: list[Position] = []
        call = SimpleNamespace(remote=lambda *arguments: None)
        self.replaced = self.saved = self.checkpoint_written = call
        self.write = SimpleNamespace(remote=lambda line, *order: self.lines.append(line))
        self.at = SimpleNamespace(remote=lambda label, position: self.positions.append(position))


def begun(spec: TrainSpec, told: Told, run: Path) -> TrainingRun:
    """The run, from its newest checkpoint."""
    reporter = Reporter(told, 0, "", spec.epochs, spec.batch_size)
    reporter.save_requested = lambda: False
    found = TrainingRun(spec, str(run), ALONE, reporter, SimpleNamespace(feed=lambda: None), spec.epochs)
    found.restore()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("every, most, last", [(1, 2, 3), (2, 3, 6)])
def test_a_run_that_gets_no_better_stops_saved_and_stays_stopped(shapes_dataset, tmp_path, every, most, last):
    """At so small a rate nothing is found: the first evaluation stays the best. The last epoch is not due for a checkpoint."""
    spec = validate(train_job(shapes_dataset, str(tmp_path), epochs=9, early_stopping_epochs=most, evaluation={"every_epochs": every},
                              optimizer={"learning_rate": 1e-9}, checkpoint={"every_epochs": 5}))
    told = Told()
    run = begun(spec, told, tmp_path / "run")
    run.train()
    run.finish()
    results = storage.read_json(str(tmp_path / "run/results.json"))
    assert [row["epoch"] for row in results["epochs"]] == [*range(1, last + 1)]
    assert results["last_checkpoint"] == f"checkpoint-epoch-000{last}" and results["metrics"]["overall"]["num_images"] == 7
    assert f"stopped early: ap has not risen for {most} epochs" in told.lines
    again = begun(spec, told, tmp_path / "run")
    again.train()
    assert again.state.epoch == last, "a resumed run has learnt nothing more"
    longer = begun(spec.model_copy(update={"early_stopping_epochs": most + every}), told, tmp_path / "run")
    longer.train()
    assert longer.state.epoch == last + every


@pytest.mark.slow
def test_the_page_grows_with_the_run_and_ends_whole(shapes_dataset, tmp_path):
    spec = validate(train_job(shapes_dataset, str(tmp_path), epochs=3, evaluation={"every_epochs": 1}))
    told, pages = Told(), []
    run = begun(spec, told, tmp_path / "run")
    report = tmp_path / "run/report"
    while run.state.epoch < spec.epochs:
        run.epoch()
        pages.append((report / "index.html").read_text())
    run.finish()
    assert ["1 of 3" in page for page in pages] == [True, False, False] and "2 of 3" in pages[1]
    assert "alt='first training batches'" in pages[0] and (report / "train-batches.jpg").exists()
    assert "3 of 3" in (report / "index.html").read_text() and (report / "confusion-matrix.png").exists()
    results = storage.read_json(str(tmp_path / "run/results.json"))
    assert [row["epoch"] for row in results["epochs"]] == [1, 2, 3] and results["metrics"]["overall"]["num_images"] == 7
    assert all(0 <= row["confidence"] <= 1 for row in results["epochs"])
    assert len((tmp_path / "run/results.csv").read_text().splitlines()) == 1 + 3
    assert [line.split("  ")[0] for line in told.lines if line.startswith("epoch ")] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
