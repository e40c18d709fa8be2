"""What a search begins with: the train job's own values, and earlier searches."""

import pytest
from training_jobs import train_job

from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.kind import Upcoming
from yolov7_ray.tune.job import KIND
from yolov7_ray.tune.search.history import Known
from yolov7_ray.tune.search.proposals import Proposer
from yolov7_ray.tune.search.starts import starts

SEARCH = {"model.width": {"choice": [0.25, 0.5, 1.0]}, "optimizer.learning_rate": {"loguniform": [1e-3, 1e-1]}}


def spec(search=SEARCH, train=None, **changes):
    return validate({"kind": "tune", "train": train_job("data", "runs", epochs=9, **(train or {})),
                     "search": search} | changes)


def row(trial: str, ap: float | None, gflops: float, width: float, **changes) -> dict:
    return {"trial": trial, "values": {"model.width": width}, "status": "trained", "epochs": 9, "error": None,
            "figures": {"ap": ap, "gflops": gflops}} | changes


def save(run, job, rows, fingerprint="f1") -> str:
    storage.write_json(str(run / "job.json"), {"job": job.model_dump(mode="json"), "fingerprint": fingerprint})
    storage.write_json(str(run / "trials.json"), rows)
    return str(run)


@pytest.mark.parametrize(("search", "train", "first", "note"), [
    (SEARCH, {}, [{"model.width": 0.25, "optimizer.learning_rate": 0.01}], "defaults: first"),
    ({"model.width": {"choice": [0.5, 1.0]}}, {}, [{"model.width": 0.5}],
     "defaults: first; nearest values of the search for model.width"),
    ({"model.width": {"choice": [0.5, 1.0]}}, {"model": {"architecture": "yolov7-tiny"}}, [{"model.width": 1.0}],
     "defaults: first"),
    ({"model.width": {"choice": [0.5, 1.0]}}, {"model": {"architecture": "yolov7-tiny", "depth": 0.5}}, [],
     "defaults: left out, model.width is no value of the search"),
    ({"optimizer.algorithm": {"choice": ["adam", "adamw"]}}, {}, [],
     "defaults: left out, optimizer.algorithm is no value of the search"),
    ({"data.max_images": {"choice": [None, 8]}}, {}, [{"data.max_images": None}], "defaults: first"),
])
def test_the_train_jobs_own_values_go_first(search, train, first, note):
    found = starts(spec(search, train), None)
    assert (found.first, found.earlier, found.notes) == (first, [], [note])


def test_an_earlier_search_is_told_and_its_front_goes_first(tmp_path):
    earlier = spec({"model.width": {"choice": [0.25, 0.5, 0.75, 1.0]}})
    uri = save(tmp_path / "old", earlier, [
        row("a", 0.2, 1.0, 0.25), row("b", 0.3, 2.0, 0.5), row("c", 0.25, 3.0, 0.75), row("d", 0.5, 4.0, 1.0),
        row("e", 0.9, 0.5, 1.0, status="stopped"), row("f", None, 0.5, 1.0), row("g", 0.9, 0.1, 1.0, error="lost")])
    found = starts(spec(start_with=[uri]), "f1")
    rate = {"optimizer.learning_rate": 0.01}  # fixed in the earlier search
    assert found.first == [{"model.width": 1.0} | rate, {"model.width": 0.25} | rate, {"model.width": 0.5} | rate]
    assert found.earlier == [Known({"model.width": width} | rate, {"gflops": gflops}, {9: {"ap": ap}})
                             for ap, gflops, width in ((0.2, 1.0, 0.25), (0.3, 2.0, 0.5), (0.5, 4.0, 1.0))]
    assert found.notes == [f"{uri}: 3 points of its front first; 3 trained trials told to the algorithm, 1 outside the "
                           "search left out"]
    proposer = Proposer(spec(start_with=[uri]), first=found.first, earlier=found.earlier)
    assert [proposer.suggest(str(trial)) for trial in range(3)] == found.first


def test_trials_whose_values_changed_are_tried_but_not_told(tmp_path):
    values = {"model.width": 0.25, "optimizer.learning_rate": 0.02}
    changed = row("b", 0.3, 1.0, 0.25, values=values | {"optimizer.learning_rate": 0.03},
                  lineage=[{"trial": "a", "after_epoch": 0, "values": values}])
    uri = save(tmp_path / "old", spec(), [row("a", 0.2, 1.0, 0.25, values=values, lineage=[]), changed])
    found = starts(spec(start_with=[uri]), "f1")
    assert found.first == [changed["values"]] and [known.values for known in found.earlier] == [values]
    assert found.notes == [f"{uri}: 1 point of its front first; 1 trained trial told to the algorithm, 1 whose values "
                           "changed left out"]


@pytest.mark.parametrize(("changes", "fingerprint", "differs"), [
    ({}, "f2", "the dataset"),
    ({}, None, "the dataset"),
    ({"train": {"batch_size": 4}}, "f1", "batch_size"),
    ({"train": {"optimizer": {"momentum": 0.5}}}, "f1", "optimizer.momentum"),
])
def test_results_of_another_training_are_not_compared(tmp_path, changes, fingerprint, differs):
    uri = save(tmp_path / "old", spec(), [
        row("a", 0.2, 1.0, 0.25, values={"model.width": 0.25, "optimizer.learning_rate": 0.02})])
    found = starts(spec(start_with=[uri], **changes), fingerprint)
    assert found.first == [{"model.width": 0.25, "optimizer.learning_rate": 0.02}] and not found.earlier
    assert found.notes == [f"{uri}: 1 point of its front first; its results are not compared, {differs} differs"]
    assert not starts(spec(start_with=[uri], train={"resources": {"workers": 2}}), "f1").notes[0].endswith("differs")


def test_a_directory_without_a_search_is_refused(tmp_path):
    with pytest.raises(JobError, match=f"start_with: {tmp_path}: is not the directory of a finished search; give one"):
        starts(spec(start_with=[str(tmp_path)]), None)


def test_a_missing_search_is_found_before_ray_starts_but_not_one_that_an_earlier_step_makes(shapes_dataset, tmp_path):
    def job(*start_with: str):
        train = train_job(shapes_dataset, "runs")
        return validate({"kind": "tune", "train": train, "search": SEARCH, "start_with": list(start_with)})

    KIND.check_inputs(job("defaults", "${first.run}"), Upcoming())
    uris = dict(KIND.uris(job("defaults", "${first.run}", "old")))
    assert {path: uri for path, uri in uris.items() if path[0] == "start_with"} == {("start_with", 2): "old"}
    with pytest.raises(JobError, match="start_with: .*nothing: is not the directory of a finished search"):
        KIND.check_inputs(job(str(tmp_path / "nothing")), Upcoming())
