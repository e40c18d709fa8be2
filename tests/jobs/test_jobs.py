"""Every job file is valid, as it is and as its own header says to run it."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

import submit
from yolov7.model.describe import count_parameters
from yolov7.model.detector import build_model
from yolov7_ray.jobs import document
from yolov7_ray.jobs.admission import requested
from yolov7_ray.jobs.job_file import json_schema, load_job, to_json
from yolov7_ray.jobs.kinds import KINDS
from yolov7_ray.jobs.pipeline import PipelineSpec
from yolov7_ray.tune.spec import TuneSpec

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "jobs").glob("*.yaml"))

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """What `submit.py schema` prints, as a validator."""
    return Draft202012Validator(json_schema())


def commands(path: Path) -> list[list[str]]:
    """The words after `python submit.py` of every command in a file's header, continuation lines joined."""
    header = "\n".join(line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#"))
    header = header.replace("\\\n", " ")
    return [shlex.split(match, comments=True) for match in re.findall(r"^python submit\.py (.*)$", header, re.MULTILINE)]


@each_file
def test_file_is_valid(path):
    job = load_job(path)
    assert job.name == path.stem
    assert load_job(to_json(job)) == job


@each_file
def test_name_says_the_kind(path):
    job = load_job(path)
    kinds = {"quickstart": "pipeline", "ablation": "train", "export": "export-dataset", "search": "tune",
             "search-and-serve": "pipeline", "folder-to-endpoint": "pipeline", "export-model": "export"}
    first = path.stem.split("-")[0]
    assert kinds.get(path.stem, kinds.get(first, first)) == job.kind


@each_file
def test_header_says_how_to_run_it(path):
    found = commands(path)
    assert found, "the header shows no command"
    for words in found:
        arguments = submit.parse(words)
        if hasattr(arguments, "job"):  # not a verb
            load_job(ROOT / arguments.job, arguments.overrides)
    assert (ROOT / submit.parse(found[0]).job) == path


@each_file
def test_schema_accepts_it(path, schema):
    schema.validate(document.read(path))


@each_file
def test_file_takes_overrides(path):
    job = load_job(path, ["name=other"])
    assert job.name == "other"
    places = {"train": ("", None), "tune": ("train.", ""), "quickstart": ("steps.train.", None),
              "folder-to-endpoint": ("steps.train.", None),
              "search-and-serve": ("steps.search.train.", "steps.search.")}
    if (found := path.stem if path.stem in places else job.kind) in places:
        section, search = places[found]
        grace = [f"{search}grace_epochs=1"] if search is not None else []
        job = load_job(path, [f"{section}epochs=2", f"{section}model.architecture=yolov7-tiny",
                              f"{section}optimizer.learning_rate=1e-3", *grace])
        step = job.steps["train" if "train" in job.steps else "search"] if isinstance(job, PipelineSpec) else job
        train = step.train if isinstance(step, TuneSpec) else step
        assert (train.epochs, train.model.architecture, train.optimizer.learning_rate) == (2, "yolov7-tiny", 1e-3)


def test_every_kind_and_the_required_files_are_there():
    kinds = {load_job(file).kind for file in FILES}
    assert kinds == set(KINDS)
    assert {"quickstart", "ingest-coco", "ingest-yolo", "ingest-voc", "train-yolov7-coco", "train-yolov7-w6-coco",
            "train-yolov7-tiny-bccd", "tune-hyperparameters", "tune-scaling"} <= {file.stem for file in FILES}


WITHOUT_S3 = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "", "AWS_ENDPOINT_URL": "",
              "AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_CONFIG_FILE": "none"}


@pytest.mark.parametrize("path", [path for path in FILES if "s3://my-bucket/datasets" in path.read_text().partition("kind:")[2]],
                         ids=lambda path: path.stem)
def test_dry_run_tells_cost_and_demand_where_the_data_cannot_be_reached(path, capsys, monkeypatch):
    for name, value in WITHOUT_S3.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert submit.main([str(path), "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "  asks for  " in plan and "cannot be reached: s3://my-bucket/" in plan
    if load_job(path).kind == "train":
        assert "GFLOPs per image (with 80 classes; its own cannot be read now)" in plan


@pytest.mark.parametrize("table", [3, 4, 5, 6, 7, 8])
def test_each_table_of_ablations_has_a_file_with_a_command_for_each_row(table):
    [path] = (ROOT / "jobs").glob(f"ablation-table-{table}-*.yaml")
    rows = {3: 4, 4: 6, 5: 6, 6: 4, 7: 3, 8: 3}[table]
    jobs = [load_job(path, submit.parse(words).overrides) for words in commands(path)]
    assert len(jobs) == rows == len({job.name for job in jobs})
    assert len({to_json(job.model_copy(update={"name": None})) for job in jobs}) == rows, "rows differ"
    assert path.read_text().startswith(f"# Table {table} of the paper: ")


@pytest.mark.parametrize(("overrides", "millions"), [
    ([], 47.0), (["model.depth=1", "model.width=1.25"], 73.4), (["model.depth=2", "model.width=1"], 69.3),
    (["model.architecture=yolov7-x"], 71.3)])
def test_the_rows_of_table_3_have_the_papers_parameters(overrides, millions):
    job = load_job(ROOT / "jobs/ablation-table-3-model-scaling.yaml", overrides)
    with torch.device("meta"):
        assert round(count_parameters(build_model(job.build_architecture(), 80)) / 1e6, 1) == pytest.approx(millions, abs=0.11)


@pytest.mark.parametrize(("name", "num_gpus"), [
    ("train-yolov7-coco", 8), ("train-yolov7-w6-coco", 32), ("train-yolov7-tiny-bccd", 0)])
def test_jobs_of_the_paper_ask_for_the_gpus_that_they_name(name, num_gpus):
    assert requested(load_job(ROOT / "jobs" / f"{name}.yaml"))["GPU"] == num_gpus
