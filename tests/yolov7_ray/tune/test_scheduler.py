"""Decisions of a search: what is trained next, retried, given up, and what a search that was killed goes on with."""

import json
import random
from dataclasses import dataclass, field
from functools import partial

import pytest
from training_jobs import train_job

from yolov7_ray import storage
from yolov7_ray.errors import JobError, StorageError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.tune.scheduler import Scheduler
from yolov7_ray.tune.search.proposals import FINISHED


@dataclass
class Known:
    """A point."""

    values: dict
    costs: dict = field(default_factory=dict)
    reason: str | None = None


class Numbers:
    """Proposes rates by its own random numbers, remembers what it was told, and refuses rates above a limit."""

    def __init__(self, state: dict | None = None, number: int = 100, limit: float = 1.0) -> None:
        self.random, self.limit, state = random.Random(), limit, state or {}
        self.random.setstate(state.get("random") and freeze(state["random"]) or random.Random(7).getstate())
        self.left, self.told = state.get("left", number), state.get("told", [])
        self.trials = {name: Known(**known) for name, known in state.get("trials", {}).items()}
        self.rejected = [Known(**known) for known in state.get("rejected", [])]

    def suggest(self, trial: str):
        while self.left:
            self.left -= 1
            known = Known({"optimizer.learning_rate": (rate := round(self.random.uniform(0.001, 0.1), 6))})
            if rate <= self.limit:
                self.trials[trial] = known
                return known.values
            known.reason = f"rate {rate:g} is above {self.limit:g}"
            self.rejected.append(known)
        return FINISHED

    def observe(self, trial: str, epoch: int, figures: dict) -> None:
        self.told.append([trial, epoch, figures.get("ap")])
        self.random.random()  # what it proposes depends on what it was told

    def reject(self, trial: str, costs: dict) -> str | None:
        self.trials[trial].costs |= costs
        return "too slow" if costs["latency_ms"] > 10 else None

    def lost(self, trial: str) -> None:
        self.told.append([trial, "lost"])

    def state(self) -> dict:
        return {"random": self.random.getstate(), "left": self.left, "told": self.told,
                "trials": {name: vars(known) for name, known in self.trials.items()},
                "rejected": [vars(known) for known in self.rejected]}


def freeze(value):
    """A random generator's state, as it was before JSON made lists of its tuples."""
    return tuple(map(freeze, value)) if isinstance(value, list) else value


def search(tmp_path, proposer=Numbers, log=print, measures_latency=False, **changes) -> Scheduler:
    spec = validate({"kind": "tune", "train": train_job("data", "runs", epochs=9), "storage": str(tmp_path),
                     "search": {"optimizer.learning_rate": {"loguniform": [0.001, 0.1]}}, "reduction_factor": 3,
                     "budget": {"trials": 6, "share": 0.5}} | changes)
    return Scheduler(spec, str(tmp_path / "s"), proposer, 20, measures_latency, log)


def reach(scheduler: Scheduler, start) -> tuple:
    """Train a trial: its AP grows with its rate and its epochs. What was trained, to which epoch."""
    trial = start.trial
    ap = trial.values["optimizer.learning_rate"] * trial.to_epoch
    scheduler.reached(trial.trial_id, {"ap": ap, "gflops": 2.0})
    return trial.trial_id, trial.to_epoch, trial.values["optimizer.learning_rate"]


def undisturbed(tmp_path, **changes) -> list[tuple]:
    scheduler, found = search(tmp_path / "undisturbed", **changes), []
    while start := scheduler.next():
        found.append(reach(scheduler, start))
    assert scheduler.is_finished
    return found


def test_trials_pause_at_rungs_and_the_best_are_trained_to_the_end(tmp_path):
    found = undisturbed(tmp_path)
    epochs = {name: epoch for name, epoch, _ in found}
    assert {epoch for _, epoch, _ in found} == {1, 3, 9} and len(epochs) == 6
    rates = {name: rate for name, _, rate in found}
    assert epochs[max(rates, key=rates.get)] == 9
    rows = storage.read_json(str(tmp_path / "undisturbed/s/trials.json"))
    assert {row["trial"]: row["status"] for row in rows} == {
        name: "trained" if epoch == 9 else "stopped" for name, epoch in epochs.items()}
    for row in rows:
        assert row["figures"] == {"ap": rates[row["trial"]] * row["epoch"], "gflops": 2.0}
        assert (row["cost"], row["spent"]) == (40.0, 40.0 * row["epoch"]), "GFLOPs of 20 images"
        assert row["epoch"] == row["rung"] == epochs[row["trial"]] and bool(row["reason"]) == (row["epoch"] < 9)
    state = storage.read_json(str(tmp_path / "undisturbed/s/search.json"))
    assert [tuple(event[1:]) for event in state["history"]] == [(name, epoch) for name, epoch, _ in found]
    assert state["history"][0][0] == 40 and state["history"][-1][0] == state["spent"]
    assert state["spent"] == sum(row["spent"] for row in rows) <= 0.5 * 6 * 9 * 40


@pytest.mark.parametrize("killed_at", range(1, 12, 2))
def test_a_search_that_is_killed_at_any_moment_goes_on_as_without_that(tmp_path, killed_at):
    expected = undisturbed(tmp_path)
    scheduler, found = search(tmp_path / "killed"), []
    for number in range(100):
        if number == killed_at:  # between the start of a trial and its rung
            scheduler.next()
            scheduler = search(tmp_path / "killed")
        if number == killed_at + 1:  # between two trials
            scheduler = search(tmp_path / "killed")
        if (start := scheduler.next()) is None:
            break
        found.append(reach(scheduler, start))
    assert found == expected


def test_a_finished_search_is_extended_by_more_trials(tmp_path):
    scheduler = search(tmp_path)
    before = []
    while start := scheduler.next():
        before.append(reach(scheduler, start))
    assert search(tmp_path).next() is None
    longer = search(tmp_path, budget={"trials": 9, "share": 0.5})
    after = []
    while start := longer.next():
        after.append(reach(longer, start))
    assert {name for name, *_ in after} >= {"007", "008", "009"} and len(longer.trials) == 9
    assert len({rate for *_, rate in before + after}) == 9, "what was proposed is not proposed again"


def test_the_whole_of_the_compute_trains_all_trials_to_the_end(tmp_path):
    scheduler = search(tmp_path, budget={"trials": 6, "share": 1})
    while start := scheduler.next():
        trial = start.trial
        scheduler.reached(trial.trial_id, {"ap": 0.1 * trial.to_epoch, "gflops": 0.1 * int(trial.trial_id)})
    assert {trial.status for trial in scheduler.trials.values()} == {"trained"}


def test_several_trials_run_at_a_time_and_each_once(tmp_path):
    scheduler = search(tmp_path)
    starts = [scheduler.next() for _ in range(4)]
    assert [start.trial.trial_id for start in starts] == ["001", "002", "003", "004"]
    assert scheduler.num_started == 4 and scheduler.running == dict.fromkeys(("001", "002", "003", "004"), 1)
    reach(scheduler, starts[2])
    assert scheduler.num_started == 3 and scheduler.trials["003"].row(ended=False)["status"] == "paused"
    again = search(tmp_path)
    assert [again.next().trial.trial_id for _ in range(3)] == ["001", "002", "004"] and again.num_started == 3


def test_a_lost_trial_is_tried_again_and_then_given_up(tmp_path):
    scheduler = search(tmp_path, retries=2)
    name = scheduler.next().trial.trial_id
    for lost in (1, 2):
        assert scheduler.failed(name, "its process died", True).status == "running" and scheduler.num_started == 0
        assert scheduler.next().trial.trial_id == name and scheduler.trials[name].lost == lost
    assert scheduler.failed(name, "Traceback\nits process died", True).status == "failed"
    assert scheduler.proposer.told == [[name, "lost"]]
    other = scheduler.next()
    assert other.trial.trial_id == "002"
    reach(scheduler, other)
    rows = {row["trial"]: row for row in scheduler.rows()}
    assert (rows["001"]["status"], rows["001"]["error"]) == ("failed", "Traceback\nits process died")
    while start := scheduler.next():
        reach(scheduler, start)
    assert scheduler.is_finished and scheduler.trials["001"].status == "failed"
    resumed = search(tmp_path)
    assert resumed.next().trial.trial_id == "001", "--resume tries it once more"


def test_progress_forgives_earlier_losses(tmp_path):
    scheduler = search(tmp_path, retries=1, budget={"trials": 1, "share": 1})
    for _ in range(3):
        start = scheduler.next()
        assert scheduler.failed("001", "lost", True).status == "running"
        reach(scheduler, scheduler.next())
    assert start.trial.epoch == 9 and scheduler.next() is None

    scheduler = search(tmp_path / "within", retries=1)
    for newest in ("checkpoint-1", "checkpoint-2", "checkpoint-3"):
        assert scheduler.failed(scheduler.next().trial.trial_id, "lost", True, newest).status == "running"
    assert scheduler.failed(scheduler.next().trial.trial_id, "lost", True, "checkpoint-3").status == "failed"


def test_an_error_that_would_recur_is_not_retried_and_ends_a_search_in_which_nothing_works(tmp_path):
    scheduler = search(tmp_path)
    for _ in range(2):
        assert scheduler.failed(scheduler.next().trial.trial_id, "ValueError: no", False).status == "failed"
    start = scheduler.next()
    with pytest.raises(JobError, match="the first 3 trials failed, the last with: ValueError: no"):
        scheduler.failed(start.trial.trial_id, "Traceback\nValueError: no", False)


def test_points_that_break_a_constraint_are_told_and_kept_without_training(tmp_path):
    lines = []
    scheduler = search(tmp_path, partial(Numbers, limit=0.05), lines.append)
    while start := scheduler.next():
        assert start.trial.values["optimizer.learning_rate"] <= 0.05
        reach(scheduler, start)
    rows = storage.read_json(str(tmp_path / "s/trials.json"))
    rejected = [row for row in rows if row["status"] == "rejected"]
    assert rejected and len(rows) - len(rejected) == 6, "a rejected point is none of the budget's trials"
    assert all(row["epoch"] == row["spent"] == 0 and "is above 0.05" in row["reason"] for row in rejected)
    assert sum(int(line.partition(" point")[0]) for line in lines) == len(rejected)
    assert lines[-1].endswith(f"rejected, the last: {rejected[-1]['reason']}")


def test_latency_is_measured_before_training_and_a_slow_trial_is_not_trained(tmp_path):
    scheduler = search(tmp_path, measures_latency=True)
    start = scheduler.next()
    assert start.measures and start.trial.trial_id == "001"
    assert scheduler.measured("001", {"latency_ms": 11.0}).status == "rejected"
    assert scheduler.next().trial.trial_id == "002"
    assert scheduler.measured("002", {"latency_ms": 9.0}).status == "running" and scheduler.num_started == 0
    start = scheduler.next()
    assert (start.trial.trial_id, start.measures, start.trial.to_epoch) == ("002", False, 1)
    reach(scheduler, start)
    assert scheduler.trials["002"].figures["latency_ms"] == 9.0
    row = scheduler.rows()[0]
    assert (row["status"], row["reason"], row["figures"]) == ("rejected", "too slow", {"latency_ms": 11.0})
    assert not search(tmp_path, measures_latency=True).trials["002"].row()["error"]


def test_the_best_are_trained_in_full_with_several_seeds_and_those_that_were_are_not_again(tmp_path):
    job = {"finalists": {"count": 2, "seeds": 2}}
    scheduler, found = search(tmp_path, **job), []
    while (start := scheduler.next()).trial.job is None:
        found.append(reach(scheduler, start))
    trained = [name for name, epoch, _ in found if epoch == 9]
    assert len(trained) >= 2 and len(scheduler.finalists) == 4
    best = max(found, key=lambda leg: (leg[1], leg[2]))[0]
    first = list(scheduler.finalists.values())[:2]
    assert [trial.trial_id for trial in first] == [f"{best}-seed-0", f"{best}-seed-1"]
    assert first[0].status == "trained" and first[0].run == scheduler.trials[best].run, "that was the trial itself"
    assert (start.trial, start.job.seed, start.job.epochs) == (first[1], 1, 9) and not start.measures
    scheduler = search(tmp_path, **job)  # killed
    assert (again := scheduler.next()).trial.trial_id == start.trial.trial_id
    scheduler.reached(again.trial.trial_id, {"ap": 0.9})
    other = scheduler.next()
    assert other.job.seed == 1 and scheduler.failed(other.trial.trial_id, "no", False).status == "failed"
    assert scheduler.next() is None and scheduler.is_finished
    rows = storage.read_json(str(tmp_path / "s/finalists.json"))
    assert rows[0]["finalist"] == best and rows[0]["seeds"][1] == {"ap": 0.9} and len(rows[1]["seeds"]) == 1
    assert rows[0]["figures"]["ap"] == pytest.approx((scheduler.trials[best].figures["ap"] + 0.9) / 2)
    assert len(scheduler.rows()) == 6, "finalists are no trials"


def test_a_search_ends_when_its_points_or_hours_are_used_up(tmp_path, monkeypatch):
    scheduler = search(tmp_path / "points", partial(Numbers, number=2))
    while start := scheduler.next():
        reach(scheduler, start)
    assert len(scheduler.trials) == 2 and scheduler.is_finished

    now = [0.0]
    monkeypatch.setattr("yolov7_ray.tune.scheduler._now", lambda: now[0])
    hours = {"budget": {"trials": 6, "share": 0.5, "hours": 2}}
    scheduler = search(tmp_path / "hours", **hours)
    start, now[0] = scheduler.next(), 3600.0
    reach(scheduler, start)
    start = scheduler.next()
    now[0] = 7201.0
    assert scheduler.next() is None and not scheduler.is_finished, "a trial still runs"
    reach(scheduler, start)
    assert scheduler.next() is None and scheduler.is_finished
    now[0] = 0.0
    assert search(tmp_path / "hours", **hours).next() is None, "hours of its earlier parts count"
    assert search(tmp_path / "hours", budget={"trials": 6, "share": 0.5}).next() is not None


def test_storage_that_does_not_answer_does_not_end_a_search(tmp_path, monkeypatch):
    lines, broken = [], [True]
    write = storage.write_json

    def fail(uri, value):
        if broken[0]:
            raise StorageError(uri, "does not answer", "try again")
        write(uri, value)

    scheduler = search(tmp_path, log=lines.append)
    monkeypatch.setattr(storage, "write_json", fail)
    reach(scheduler, scheduler.next())
    assert len(lines) == 2 and "could not be written" in lines[0]
    broken[0] = False
    start = scheduler.next()
    known = json.loads((tmp_path / "s/search.json").read_text())["trials"]
    assert known["001"]["epoch"] == 1 and known[start.trial.trial_id]["status"] == "running"


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_trials_of_a_plain_sweep_are_all_trained_to_the_end_at_once(tmp_path, algorithm):
    space = {"optimizer.learning_rate": {"choice": [0.01, 0.02]}}
    found = undisturbed(tmp_path, algorithm=algorithm, **({"search": space} if algorithm == "grid" else {}))
    assert [leg[:2] for leg in found] == [(f"00{number}", 9) for number in range(1, 7)]
