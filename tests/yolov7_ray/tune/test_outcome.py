"""What a search leaves behind: the best job, a job for each member of the front, and what a pipeline takes of it."""

import pytest
from searches import row, tune_job

from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import load_job, validate
from yolov7_ray.registry.front import load_front
from yolov7_ray.tune.report.front import names_of
from yolov7_ray.tune.report.outcome import table, write_outcome
from yolov7_ray.tune.report.view import SearchView


def values(width: float, rate: float = 0.01) -> dict:
    return {"model.width": width, "optimizer.learning_rate": rate}


ROWS = [row("a", ap=0.3, gflops=2.0, values=values(0.5, 0.02)), row("b", ap=0.2, gflops=1.0, values=values(0.25)),
        row("c", ap=0.1, gflops=2.0, values=values(0.5)), row("d", "stopped", 1, ap=0.4, gflops=1.0, values=values(0.25))]


def view(run, rows=ROWS, **changes) -> SearchView:
    return SearchView(validate(tune_job(**changes)), rows, run=str(run))


def test_a_search_leaves_the_best_job_the_front_and_a_page(place, capsys):
    outputs = write_outcome(view(place))
    assert outputs == {"run": place, "best_job": f"{place}/best.yaml", "front": f"{place}/front",
                       "checkpoint": ROWS[0]["checkpoint"], "model": ROWS[0]["run"], "best": ROWS[0]}
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
