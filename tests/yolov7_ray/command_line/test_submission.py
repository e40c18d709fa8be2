"""A job driven from Python."""

import pytest
from conftest import ingest_here

from yolov7_ray import JobError, submit
from yolov7_ray.data.manifest import load_manifest

SHAPES = {"kind": "ingest", "dataset": "made/shapes",
          "source": {"format": "shapes", "image_size_px": 64, "splits": {"train": 6, "val": 3}}}
WAIT_S = 600


def test_a_mistake_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match="job: datasets: "):
        submit(SHAPES, set={"datasets": "x"})
    with pytest.raises(JobError, match="no such job file"):
        submit("missing.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_outputs_logs_and_status_of_a_job_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = submit(SHAPES, set={"source.splits": {"train": 5, "val": 2}, "dataset": "made/other"}, name="first")
    assert made.run == "first" and made.directory is None
    outputs = made.wait(WAIT_S)
    assert made.status == "succeeded" and repr(made) == "<ingest first: succeeded>"
    assert outputs["dataset"] == str(tmp_path / "made/other")
    assert [load_manifest(outputs["dataset"]).split(name).num_rows for name in ("train", "val")] == [5, 2]
    assert "first: starting (ingest)" in made.logs()


@pytest.mark.slow
def test_the_error_of_a_job_that_fails_is_raised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ingest_here({"format": "shapes", "image_size_px": 64, "splits": {"train": 6, "val": 3}}, str(tmp_path / "d"))
    failed = submit({"kind": "evaluate", "model": "runs/none", "dataset": "d"})
    with pytest.raises(JobError, match="failed: .*runs/none"):
        failed.wait(WAIT_S)
    assert failed.status == "failed" and failed.epochs.empty


@pytest.mark.slow
def test_a_job_that_is_stopped_saves_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = submit(SHAPES | {"source": SHAPES["source"] | {"splits": {"train": 100_000, "val": 3}}})
    with pytest.raises(TimeoutError):
        job.wait(0)
    assert job.stop() == "stopped" == job.status
    with pytest.raises(JobError, match="stopped"):
        job.wait(WAIT_S)
