"""What a search leaves behind: the best job, a job for each member of the front, and what a pipeline takes of it."""

from dataclasses import replace

import pytest
from searches import row, tune_job

from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import load_job, validate
from yolov7_ray.registry.front import load_front
from yolov7_ray.tune.report.finalists import finalist_rows
from yolov7_ray.tune.report.front import names_of
from yolov7_ray.tune.report.live import progress
from yolov7_ray.tune.report.outcome import table, write_outcome
from yolov7_ray.tune.report.view import SearchView
from yolov7_ray.tune.trial import Trial


def values(width: float, rate: float = 0.01) -> dict:
    return {"model.width": width, "optimizer.learning_rate": rate}


ROWS = [row("a", ap=0.3, gflops=2.0, values=values(0.5, 0.02)), row("b", ap=0.2, gflops=1.0, values=values(0.25)),
        row("c", ap=0.1, gflops=2.0, values=values(0.5)), row("d", "stopped", 1, ap=0.4, gflops=1.0, values=values(0.25))]


def view(run, rows=ROWS, **changes) -> SearchView:
    return SearchView(validate(tune_job(**changes)), rows, run=str(run))


def test_a_search_leaves_the_best_job_the_front_and_a_page(place, capsys):
    outputs = write_outcome(view(place))
    assert outputs == {"run": place, "best_job": f"{place}/best.yaml", "front": f"{place}/front",
                       "checkpoint": ROWS[0]["checkpoint"], "model": ROWS[0]["run"], "best": ROWS[0],
                       "report": f"{place}/report/index.html"}
    assert {file.path for file in storage.list_files(place)} == {
        "best.yaml", "front/front.json", "front/w025.yaml", "front/w050.yaml", "report/index.html", "search.yaml",
        "trials.json"}
    assert [(kept["trial"], kept["on_front"]) for kept in storage.read_json(f"{place}/trials.json")] == [
        ("d", False), ("a", True), ("b", True), ("c", False)]
    best = load_job(f"{place}/best.yaml")
    assert (best.model.width, best.optimizer.learning_rate, best.epochs) == (0.5, 0.02, 2)
    members = load_front(f"{place}/front")
    assert [(member.name, member.trial, member.model, member.figures) for member in members] == [
        ("w050", "a", ROWS[0]["checkpoint"], {"ap": 0.3, "gflops": 2.0}),
        ("w025", "b", ROWS[1]["checkpoint"], {"ap": 0.2, "gflops": 1.0})]
    assert load_job(members[1].job).model.width == 0.25
    assert load_job(f"{place}/search.yaml").search == view(place).spec.search
    assert capsys.readouterr().out.splitlines()[2].split() == ["*", "a", "0.3", "2", "2", "trained", "0.5", "0.02"]


@pytest.mark.parametrize(("train", "search", "expected"), [
    ({}, {}, (2, "elsewhere")),
    ({"storage": "mine", "epochs": 7}, {}, (7, "mine")),
    ({"storage": "mine"}, {"finalists": {"count": 2, "epochs": 300}}, (300, "mine"))])
def test_the_best_job_is_the_train_job_with_the_trials_values_alone(tmp_path, train, search, expected):
    document = tune_job(storage_uri="elsewhere")
    spec = validate(document | search | {"train": document["train"] | train})
    write_outcome(SearchView(spec, ROWS, run=str(tmp_path)))
    best = load_job(str(tmp_path / "best.yaml"))
    assert (best.epochs, best.storage) == expected
    ours = spec.train.model_dump() | {"epochs": expected[0], "storage": expected[1], "name": "best"}
    ours["model"]["width"], ours["optimizer"]["learning_rate"] = 0.5, 0.02
    assert best.model_dump() == ours


def test_models_are_named_by_size_and_once():
    sizes = {"model.architecture": "yolov7-tiny", "model.depth": 0.33, "model.width": 1.25, "data.image_size_px": 320}
    assert names_of([{"values": sizes}, {"values": {"model.depth": 1, "augment.scale": 0.5}}]) == [
        "yolov7-tiny-d033-w125-320px", "d100"]
    assert names_of([{"values": {"augment.scale": scale}} for scale in (0.1, 0.2)]) == ["best", "best-2"]
    assert names_of([{"values": values(0.5, rate)} for rate in (1, 2, 3)]) == ["w050", "w050-2", "w050-3"]


def test_without_a_fully_trained_trial_what_is_best_so_far_is_the_front(tmp_path):
    outputs = write_outcome(view(tmp_path, ROWS[3:]))
    assert outputs["best"]["trial"] == "d" and [member.trial for member in load_front(str(tmp_path / "front"))] == ["d"]


def test_trials_without_evaluation_report_the_cause(tmp_path):
    failed = row("a", "failed", 0, None, error="Traceback …\nRuntimeError: no space left")
    with pytest.raises(JobError, match="none of 1 trials reached an evaluation; RuntimeError: no space left"):
        write_outcome(view(tmp_path, [failed]))
    rejected = row("a", "rejected", 0, None, reason="parameters 4e+06 is not <= 3e+06")
    with pytest.raises(JobError, match="none of 1 trials reached an evaluation; parameters 4e"):
        write_outcome(view(tmp_path, [rejected]))
    assert not list(tmp_path.iterdir())


def test_the_table_is_sorted_and_marks_the_front(tmp_path):
    assert [line.split() for line in table(view(tmp_path)).splitlines()] == [
        ["trial", "AP", "GFLOPs", "epochs", "ended", "width", "learning_rate"],
        ["d", "0.4", "1", "1", "stopped", "0.25", "0.01"], ["*", "a", "0.3", "2", "2", "trained", "0.5", "0.02"],
        ["*", "b", "0.2", "1", "2", "trained", "0.25", "0.01"], ["c", "0.1", "2", "2", "trained", "0.5", "0.01"]]


@pytest.mark.parametrize(("uri", "found"), [("nowhere", None), ("damaged", "is no front of a search")])
def test_a_directory_without_a_front_is_none(tmp_path, uri, found):
    storage.write_json(str(tmp_path / "damaged/front.json"), [{"name": "a"}])
    if found is None:
        assert load_front(str(tmp_path / uri)) is None
    else:
        with pytest.raises(JobError, match=found):
            load_front(str(tmp_path / uri))


# --- finalists --------------------------------------------------------------------------------------


def with_finalists(run, figures: dict[str, float | None], **changes) -> SearchView:
    """The search with trainings of a and b; those without AP still run."""
    spec = validate(tune_job(finalists={"count": 2, "epochs": 7, "seeds": 2}, **changes))
    trainings = {name: Trial(name, {}, f"runs/s/trials/{name}", "running" if ap is None else "trained", to_epoch=7,
                             epoch=0 if ap is None else 7, figures={} if ap is None else {"ap": ap},
                             results=None if ap is None else {"best_checkpoint": "best", "best": {"ap": ap}})
                 for name, ap in figures.items()}
    return SearchView(spec, [*ROWS, *finalist_rows(spec, ROWS, trainings)], run=str(run))


def test_finalists_are_the_front_and_what_is_published(tmp_path):
    view = with_finalists(tmp_path, {"a-seed-0": 0.4, "a-seed-1": 0.5, "b-seed-0": 0.3, "b-seed-1": 0.3})
    assert [member["trial"] for member in view.front] == ["a-final", "b-final"] and view.hopeful == []
    first = view.best
    assert first["figures"]["ap"] == pytest.approx(0.45) and first["spread"]["ap"] == pytest.approx(0.05 * 2 ** .5)
    assert (first["status"], first["epoch"], first["reason"]) == ("finalist", 7, "mean of 2 of 2 seeds")
    assert progress(view).startswith("4 of 4 trials: 3 trained, 1 stopped · 2 of 2 finalists · best a-final (AP 0.45, GFLOPs 2)")
    outputs = write_outcome(view)
    assert outputs["checkpoint"] == "runs/s/trials/a-seed-1/best", "of the better seed"
    assert outputs["model"] == "runs/s/trials/a-seed-1"
    assert [(member.name, member.trial) for member in load_front(outputs["front"])] == [
        ("w050", "a-final"), ("w025", "b-final")]


def test_with_one_objective_a_tie_within_the_noise_goes_to_the_cheaper(tmp_path):
    tie = {"a-seed-0": 0.41, "a-seed-1": 0.45, "b-seed-0": 0.40, "b-seed-1": 0.44}  # 0.01, of 0.028 between seeds
    view = with_finalists(tmp_path, tie, objectives={"ap": "max"})
    assert [member["trial"] for member in view.front] == ["b-final"] and view.best is view.front[0]


def test_a_finalist_is_told_as_far_as_it_is_trained(tmp_path):
    view = with_finalists(tmp_path, {"a-seed-0": 0.4, "a-seed-1": None, "b-seed-0": None, "b-seed-1": None})
    assert [(found["trial"], found["status"], found["reason"]) for found in view.rows[-2:]] == [
        ("a-final", "running", "mean of 1 of 2 seeds"), ("b-final", "running", "mean of 0 of 2 seeds")]
    assert view.best["trial"] == "a"
    slower = replace(view, elapsed_s=100.0)
    cost = {row["trial"]: row["cost"] for row in ROWS}
    done, left = 7 * cost["a"], 7 * cost["a"] + 2 * 7 * cost["b"]
    assert slower.eta_s == pytest.approx(100 * left / (view.spent + done)) and "left" in progress(slower)
    assert with_finalists(tmp_path, {}).rows == ROWS
