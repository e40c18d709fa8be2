"""A population of trials: values that change while they train, weights that are passed on, and how both are told."""

import math
import shutil
from pathlib import Path

import pytest
from training_jobs import assert_same_training, train, train_job

from yolov7_ray import storage
from yolov7_ray.jobs.job_file import load_job, validate
from yolov7_ray.tune.dry_run import _rung_lines
from yolov7_ray.tune.report.outcome import write_outcome
from yolov7_ray.tune.report.page import page
from yolov7_ray.tune.report.view import SearchView, descent
from yolov7_ray.tune.scheduler import Scheduler
from yolov7_ray.tune.search.proposals import Proposer
from yolov7_ray.tune.trial import Trial, keep_best_and_newest, remove_left

RATE, HUE = "optimizer.learning_rate", "augment.hsv_hue"


def tune_job(dataset: str, storage_uri: str, epochs: int = 6, **changes) -> dict:
    return {"kind": "tune", "train": train_job(dataset, "runs", epochs=epochs), "storage": storage_uri,
            "algorithm": "population", "perturb_every_epochs": 2, "budget": {"trials": 4},
            "search": {RATE: {"loguniform": [1e-3, 1e-1]}, HUE: {"uniform": [0.0, 0.1]}}} | changes


def search(tmp_path, log=print, **changes) -> Scheduler:
    spec = validate(tune_job("data", str(tmp_path), **changes))
    return Scheduler(spec, str(tmp_path / "s"), lambda state: Proposer(spec, state=state), 20, log=log)


def reach(scheduler: Scheduler, start) -> tuple:
    """Train a trial, whose AP depends on its rate and its epochs; what was trained, from where and with what."""
    trial = start.trial
    leg = (trial.trial_id, trial.epoch, trial.to_epoch, trial.origin, trial.run, start.keep, dict(trial.values))
    assert getattr(start.job.optimizer, "learning_rate") == trial.values[RATE]
    ap = trial.to_epoch * 0.1 - abs(math.log10(trial.values[RATE] / 0.01)) * 0.05
    scheduler.reached(trial.trial_id, {"ap": ap, "gflops": 2.0})
    return leg


def undisturbed(tmp_path, **changes) -> list[tuple]:
    scheduler, found = search(tmp_path / "undisturbed", **changes), []
    while start := scheduler.next():
        found.append(reach(scheduler, start))
    assert scheduler.is_finished
    return found


def test_the_worst_goes_on_from_the_best_in_a_directory_of_its_own(tmp_path):
    lines = []
    found = undisturbed(tmp_path, log=lines.append)
    assert [(name, to) for name, _, to, *_ in found[:4]] == [(name, 2) for name in ("001", "002", "003", "004")]
    assert len(found) == 12 and all(to - epoch == 2 for _, epoch, to, *_ in found), "every trial trains every epoch"
    run = str(tmp_path / "undisturbed/s")
    assert [leg[3:6] for leg in found[:4]] == [(None, f"{run}/trials/{name}", None)
                                               for name in ("001", "002", "003", "004")]

    def badness(leg: tuple) -> float:
        return abs(math.log10(leg[-1][RATE] / 0.01))

    best, worst = min(found[:4], key=badness)[0], max(found[:4], key=badness)[0]
    first = found[4]
    assert first[:5] == (worst, 2, 4, f"{run}/trials/{best}/checkpoint-epoch-0002", f"{run}/trials/{worst}-from-epoch-2")
    assert first[5] == "checkpoint-epoch-0002", "others could go on from there"
    assert first[6] != found[int(worst) - 1][6] and first[6] != found[int(best) - 1][6]
    assert [leg[3] for leg in found[5:8]] == [None] * 3 and found[8][3] is not None
    assert lines[0] == (f"trial {worst}  goes on from the weights of trial {best} after epoch 2, with values near to "
                        "its") and len(lines) == 2
    rows = {row["trial"]: row for row in storage.read_json(f"{run}/trials.json")}
    assert {row["status"] for row in rows.values()} == {"trained"}
    last = rows[found[8][0]]
    assert last["lineage"][-1] == {"trial": last["trial"], "after_epoch": 4, "values": last["values"]}
    assert last["lineage"][0]["after_epoch"] == 0 and last["run"].endswith("-from-epoch-4")
    state = storage.read_json(f"{run}/search.json")
    assert state["trials"][last["trial"]]["lineage"] == last["lineage"] and state["trials"][last["trial"]]["origin"] is None
    assert state["rungs"] == [2, 4, 6] and state["spent"] == 4 * 6 * 40


@pytest.mark.parametrize("killed_at", range(1, 12))
def test_a_population_that_is_killed_at_any_moment_goes_on_as_without_that(tmp_path, killed_at):
    expected = [leg[:3] + leg[5:] for leg in undisturbed(tmp_path)]
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
    assert [leg[:3] + leg[5:] for leg in found] == expected


def test_a_descent_holds_the_values_of_every_part(tmp_path):
    one, two, three = (Trial(name, {RATE: rate}, f"runs/s/trials/{name}", epoch=2)
                       for name, rate in (("001", 0.1), ("002", 0.2), ("003", 0.3)))
    two.follow(one, {RATE: 0.11})
    assert two.lineage == [{"trial": "001", "after_epoch": 0, "values": {RATE: 0.1}},
                           {"trial": "002", "after_epoch": 2, "values": {RATE: 0.11}}]
    assert (two.run, two.left, two.origin) == ("runs/s/trials/002-from-epoch-2", "runs/s/trials/002",
                                               "runs/s/trials/001/checkpoint-epoch-0002")
    two.epoch = three.epoch = 4
    three.follow(two, {RATE: 0.12})
    assert [(part["trial"], part["after_epoch"], part["values"][RATE]) for part in three.lineage] == [
        ("001", 0, 0.1), ("002", 2, 0.11), ("003", 4, 0.12)]
    assert three.origin == "runs/s/trials/002-from-epoch-2/checkpoint-epoch-0004"
    two.follow(three, {RATE: 0.13})
    assert two.run == "runs/s/trials/002-from-epoch-4", "in its place, not within it"
    assert descent(three.row()) == "weights of 001 to epoch 2, 002 to epoch 4" and descent(one.row()) == ""


def test_checkpoints_of_weights_that_were_given_up_stay_until_there_are_others(tmp_path):
    trial, donor = (Trial(name, {}, str(tmp_path / name), epoch=2) for name in ("002", "001"))
    storage.write_json(str(tmp_path / "002/checkpoint-epoch-0002/checkpoint.json"), {})
    trial.follow(donor, {})
    remove_left(trial)
    assert (tmp_path / "002/checkpoint-epoch-0002").exists()
    trial.origin = None
    remove_left(trial)
    assert not (tmp_path / "002/checkpoint-epoch-0002").exists() and trial.left is None


def test_a_checkpoint_that_others_may_go_on_from_outlives_the_pause(tmp_path):
    for epoch in (2, 3, 4, 6):
        storage.write_json(str(tmp_path / f"checkpoint-epoch-000{epoch}/checkpoint.json"), {})
    storage.write_json(str(tmp_path / "results.json"), {
        "best_checkpoint": "checkpoint-epoch-0003", "last_checkpoint": "checkpoint-epoch-0006"})
    keep_best_and_newest(str(tmp_path), "checkpoint-epoch-0004")
    assert {path.name[-1] for path in tmp_path.glob("checkpoint-*")} == {"3", "4", "6"}
    keep_best_and_newest(str(tmp_path))
    assert {path.name[-1] for path in tmp_path.glob("checkpoint-*")} == {"3", "6"}


def checkpoints(run: str) -> set[str]:
    """DIRECTORY/EPOCH of all checkpoints of a search."""
    return {f"{path.parent.parent.name}/{int(path.parent.name[-4:])}"
            for path in Path(run, "trials").glob("*/checkpoint-*/checkpoint.json")}


def test_checkpoints_that_others_may_need_stay_until_the_population_is_done(tmp_path):
    from yolov7_ray.tune.follower import Follower

    scheduler = search(tmp_path)
    follower, donors = Follower(scheduler, None, lambda view: None), []
    while start := scheduler.next():
        trial, run = start.trial, start.trial.run
        if trial.origin is not None:
            donors.append(trial.origin)
            assert storage.exists(f"{trial.origin}/checkpoint.json"), "what it goes on from is there"
        for epoch in (trial.to_epoch - 1, trial.to_epoch):
            storage.write_json(f"{run}/checkpoint-epoch-{epoch:04d}/checkpoint.json", {})
        newest = f"checkpoint-epoch-{trial.to_epoch:04d}"
        storage.write_json(f"{run}/results.json", {"best_checkpoint": newest, "last_checkpoint": newest, "best": {}})
        keep_best_and_newest(run, *filter(None, [start.keep]))
        reach(scheduler, start)
        follower._remove_checkpoints(trial)
    last = {trial.trial_id: f"{Path(trial.run).name}/6" for trial in scheduler.trials.values()}
    before = {found for found in checkpoints(scheduler.run) if not found.endswith("/6")}
    assert len(donors) == 2 and set(last.values()) == checkpoints(scheduler.run) - before
    assert {found.rpartition("/")[2] for found in before} == {"4"} and len(before) == 3, "the fourth began anew there"
    best = max(scheduler.trials.values(), key=lambda trial: trial.figures["ap"])
    rows = {row["trial"]: row["checkpoint"] for row in follower.outcome().rows}
    assert checkpoints(scheduler.run) == {last[best.trial_id]}
    assert {trial for trial, checkpoint in rows.items() if checkpoint} == {best.trial_id}


def test_the_page_and_the_best_job_file_state_the_schedule_of_values(tmp_path, capsys):
    undisturbed(tmp_path)
    scheduler = search(tmp_path / "undisturbed")
    rows = [row | {"checkpoint": f"{row['run']}/checkpoint-epoch-0006"} for row in scheduler.rows()]
    follower = next(row for row in rows if row["lineage"])
    follower["figures"]["ap"] = 1.0
    view = SearchView(scheduler.spec, rows, 10.0, run=scheduler.run, history=scheduler.history)
    assert view.budget == view.full == view.spent, "all of it is trained"
    text = page(view, {row["trial"]: [{"epoch": epoch, "ap": 0.1 * epoch} for epoch in range(1, 7)] for row in rows})
    assert descent(follower) in text and "generations, after which the worst go on from the best" in text
    assert "over epochs; a line jumps where a trial goes on from another" in text
    written = write_outcome(view)
    assert written["best"]["lineage"] == follower["lineage"]
    best = Path(written["best_job"]).read_text()
    before, after = follower["lineage"][-2:]
    assert "# Its values changed while it was trained; below are the last ones.\n" in best
    assert f"# epochs {after['after_epoch'] + 1} to 6, as trial {after['trial']}: {RATE} {after['values'][RATE]:.4g}" in best
    assert f" to {after['after_epoch']}, as trial {before['trial']}: {RATE} {before['values'][RATE]:.4g}" in best
    assert f"# Weights that were trained so: {follower['run']}/checkpoint-epoch-0006\n" in best
    job = load_job(written["best_job"])
    assert (job.optimizer.learning_rate, job.augment.hsv_hue) == (follower["values"][RATE], follower["values"][HUE])


def test_the_dry_run_tells_the_generations():
    spec = validate(tune_job("data", "runs", epochs=7))
    assert _rung_lines(spec) == [
        ("generations", "4, of 2 epochs; after each one in 4 goes on from the weights of a better one")]


@pytest.mark.ray
@pytest.mark.long
def test_weights_are_passed_on_and_a_search_that_is_killed_ends_as_without_that(ray_session, shapes_dataset, tmp_path,
                                                                              monkeypatch):
    from yolov7_ray.tune.follower import Follower
    from yolov7_ray.tune.tuner import tune

    fast = {"mosaic": 0.0, "mixup": 0.0}, {"warmup_epochs": 0.5, "warmup_bias_learning_rate": 0.02}
    document = tune_job(shapes_dataset, str(tmp_path), perturb_every_epochs=6, budget={"trials": 3},
                        objectives={"ap50": "max"}, keep_checkpoints="all", max_concurrent_trials=1)
    spec = validate(document | {"search": document["search"] | {RATE: {"loguniform": [2e-3, 3e-2]}}, "train": train_job(
        shapes_dataset, "runs", epochs=12, batch_size=4, nominal_batch_size=4, evaluation={"every_epochs": 6},
        augment=fast[0], optimizer=fast[1])})
    tune(spec, "undisturbed")

    class Killed(BaseException):
        """Ends the search as if its driver were killed."""

    on_step_begin, killed = Follower.on_step_begin, []

    def kill(self, *arguments, **info) -> None:
        if not killed and any(trial.origin for trial in self.scheduler.trials.values()):
            killed.append(True)
            raise Killed
        on_step_begin(self, *arguments, **info)

    monkeypatch.setattr(Follower, "on_step_begin", kill)
    with pytest.raises(Killed):
        tune(spec, "killed")
    tune(spec, "killed")
    one, other = (storage.read_json(str(tmp_path / name / "search.json"))["trials"] for name in ("undisturbed", "killed"))
    for name, trial in one.items():
        for key in ("values", "lineage", "figures", "epoch", "status"):
            assert trial[key] == other[name][key]
        assert_same_training(trial["run"], other[name]["run"])

    trial = next(trial for trial in one.values() if trial["lineage"])
    before, after = trial["lineage"][-2:]
    assert after["values"] == trial["values"] != before["values"]
    name = f"checkpoint-epoch-{after['after_epoch']:04d}"
    [passed_on] = (tmp_path / "undisturbed/trials").glob(f"{before['trial']}*/{name}")
    shutil.copytree(passed_on, tmp_path / "alone/alone" / name)
    job = storage.read_json(f"{trial['run']}/spec.json") | {"storage": str(tmp_path / "alone")}
    assert job["optimizer"]["learning_rate"] == after["values"][RATE]
    assert_same_training(train(job, "alone")["run"], trial["run"])
