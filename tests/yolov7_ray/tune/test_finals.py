"""Finalists are trained to their end with each seed, retried, found again, and become the front."""

from dataclasses import dataclass, field

import pytest
from searches import row, tune_job

from yolov7_ray import storage
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.registry.front import load_front
from yolov7_ray.tune.finals import Finals
from yolov7_ray.tune.report.live import progress
from yolov7_ray.tune.report.outcome import write_outcome
from yolov7_ray.tune.report.view import SearchView
from yolov7_ray.tune.spec import TuneSpec


@dataclass
class Searched:
    """A search that is over."""

    spec: TuneSpec
    run: str
    history: list = field(default_factory=list)
    elapsed_s: float = 60.0

    def rows(self) -> list[dict]:
        return [row("001", ap=0.3, gflops=2.0, values={"model.width": 0.5, "optimizer.learning_rate": 0.02}),
                row("002", ap=0.2, gflops=1.0), row("003", ap=0.1, gflops=2.0), row("004", "stopped", 1, ap=0.9, gflops=0.1)]


def finals(run, seeds: int = 2, **changes) -> Finals:
    spec = validate(tune_job(finalists={"count": 2, "epochs": 7, "seeds": seeds}, **changes))
    return Finals(Searched(spec, str(run)))


def train(one: Finals, start, ap: float) -> None:
    """Its results, as training writes them."""
    storage.write_json(f"{start.trial.run}/results.json", {
        "best_checkpoint": "checkpoint-epoch-0006", "best": {"ap": ap}, "epochs": [{"epoch": 7, "ap": ap}]})
    one.reached(start.trial.trial_id, {"ap": ap})


def shown(one: Finals) -> SearchView:
    return SearchView(one.spec, one.rows(), one.elapsed_s, run=one.run)


def test_each_finalist_is_trained_with_each_seed_for_its_epochs(tmp_path):
    one = finals(tmp_path)
    starts = []
    while start := one.next():
        starts.append(start)
    assert [(start.trial.trial_id, start.trial.to_epoch, start.trial.run) for start in starts] == [
        (name, 7, f"{tmp_path}/finalists/{name}") for name in ("001-seed-0", "001-seed-1", "002-seed-0", "002-seed-1")]
    assert [(start.job.epochs, start.job.seed, start.job.model.width) for start in starts] == [
        (7, 0, 0.5), (7, 1, 0.5), (7, 0, 0.25), (7, 1, 0.25)]
    assert one.num_started == 4 and not one.is_finished
    for start, ap in zip(starts, (0.4, 0.5, 0.3, 0.3)):
        train(one, start, ap)
    assert one.is_finished
    view = shown(one)
    assert [found["trial"] for found in view.front] == ["001-final", "002-final"] and view.best["trial"] == "001-final"
    first = view.front[0]
    assert first["figures"]["ap"] == pytest.approx(0.45) and first["spread"]["ap"] == pytest.approx(0.05 * 2 ** .5)
    assert first["checkpoint"] == f"{tmp_path}/finalists/001-seed-1/checkpoint-epoch-0006", "of the better seed"
    assert (first["status"], first["epoch"], first["reason"]) == ("finalist", 7, "mean of 2 of 2 seeds")
    assert progress(view).startswith("4 of 4 trials: 3 trained, 1 stopped, 2 finalist · best 001-final (AP 0.45, GFLOPs 2)")


def test_they_are_what_the_search_leaves_behind(tmp_path):
    one = finals(tmp_path, seeds=1)
    for ap in (0.4, 0.3):
        train(one, one.next(), ap)
    outputs = write_outcome(shown(one))
    assert outputs["checkpoint"] == f"{tmp_path}/finalists/001-seed-0/checkpoint-epoch-0006"
    assert outputs["model"] == f"{tmp_path}/finalists/001-seed-0"
    assert [(member.name, member.trial) for member in load_front(outputs["front"])] == [
        ("w050", "001-final"), ("w025", "002-final")]


def test_with_one_objective_a_tie_within_the_noise_goes_to_the_cheaper(tmp_path):
    one = finals(tmp_path, objectives={"ap": "max"})
    for ap in (0.41, 0.45, 0.40, 0.44):  # 001 by 0.01, less than the 0.028 between seeds
        train(one, one.next(), ap)
    assert [found["trial"] for found in shown(one).front] == ["002-final"]


def test_a_lost_training_is_retried_and_one_that_fails_is_counted(tmp_path):
    one = finals(tmp_path, retries=1)
    first = one.next()
    assert one.failed(first.trial.trial_id, "Lost", True).status == "running"
    others = [one.next() for _ in range(4)]
    assert others[-1].trial is first.trial and one.next() is None
    assert one.failed(first.trial.trial_id, "Lost again", True).status == "failed"
    for start, ap in zip(others, (0.4, 0.3, 0.3)):
        train(one, start, ap)
    best = shown(one).best
    assert (best["status"], best["reason"], best["error"], best["figures"]["ap"]) == (
        "finalist", "mean of 1 of 2 seeds", "Lost again", 0.4)


def test_a_search_that_was_killed_trains_only_what_is_left(tmp_path):
    one = finals(tmp_path)
    train(one, one.next(), 0.4)
    again = finals(tmp_path)
    assert [again.next().trial.trial_id for _ in range(3)] == ["001-seed-1", "002-seed-0", "002-seed-1"]
    assert again.next() is None and again.trials["001-seed-0"].figures == {"ap": 0.4}
    assert [found["status"] for found in again.rows()[-2:]] == ["running", "running"]
    longer = Finals(Searched(one.spec.model_copy(update={
        "finalists": one.spec.finalists.model_copy(update={"epochs": 9})}), str(tmp_path)))
    assert [longer.next().trial.to_epoch for _ in range(4)] == [9] * 4, "more epochs: all go on"
