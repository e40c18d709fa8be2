"""Steps run in order, outputs are passed on, finished steps are not repeated."""

from typing import Literal

import pytest

from yolov7_ray.jobs import execution, pipeline
from yolov7_ray.jobs.execution import summary
from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import load_job, validate
from yolov7_ray.jobs.kind import JobKind
from yolov7_ray.jobs.kinds import KINDS, kind_named

TEXT = """kind: pipeline
steps:
  ingest: {kind: ingest, dataset: /d}
  train: {kind: train, dataset: "${ingest.dataset}", storage: STORAGE}
  publish: {kind: publish, model: "${train.checkpoint}", registry: /r, publish_as: m, dataset: "${ingest.dataset}"}
  serve: {kind: serve, registry: /r, models: {m: {model: "${publish.model}"}}, wait: false}
"""
OUTPUTS = {
    "ingest": {"dataset": "/d-made", "fingerprint": "f"},
    "train": {"run": "/runs/r", "checkpoint": "/runs/r/c", "best": {"ap": 0.5}},
    "publish": {"model": "m:7", "version": "7"},
    "serve": {"url": "http://127.0.0.1:1"},
}


class FakeRun:
    """Replaces `run` of the kinds: records the jobs, and fails at kind ``broken``."""

    def __init__(self):
        self.jobs, self.names, self.broken = {}, [], None

    def __call__(self, spec, run_name):
        if spec.kind == self.broken:
            raise RuntimeError("the power went out")
        self.jobs[spec.kind] = spec
        self.names.append(run_name)
        return OUTPUTS[spec.kind]


@pytest.fixture
def fake_run(monkeypatch):
    fake = FakeRun()
    for kind in OUTPUTS:
        monkeypatch.setattr(type(kind_named(kind)), "run", lambda self, spec, run_name: fake(spec, run_name))
    return fake


@pytest.fixture
def job(tmp_path):
    return load_job(TEXT.replace("STORAGE", str(tmp_path / "runs")))


def test_outputs_are_passed_on(fake_run, job, tmp_path, capsys):
    assert pipeline.KIND.run(job, "p") == OUTPUTS
    assert fake_run.names == ["p-ingest", "p-train", "p-publish", "p-serve"]
    assert fake_run.jobs["train"].dataset == "/d-made"
    assert (fake_run.jobs["publish"].model, fake_run.jobs["publish"].dataset) == ("/runs/r/c", "/d-made")
    assert fake_run.jobs["serve"].models["m"].model == "m:7"
    assert storage.read_json(str(tmp_path / "runs/p/pipeline.json"))["finished"] == OUTPUTS
    printed = capsys.readouterr().out
    assert "[2/4] train (train): run /runs/r, checkpoint /runs/r/c (" in printed


def test_resumed_pipeline_repeats_nothing_but_the_endpoint(fake_run, job, capsys):
    fake_run.broken = "publish"
    with pytest.raises(RuntimeError):
        pipeline.KIND.run(job, "p")
    assert fake_run.names == ["p-ingest", "p-train"]
    fake_run.broken, fake_run.names = None, []
    assert pipeline.KIND.run(job, "p") == OUTPUTS
    assert fake_run.names == ["p-publish", "p-serve"]
    assert "[1/4] ingest (ingest): finished before" in capsys.readouterr().out
    fake_run.names = []
    pipeline.KIND.run(job, "p")
    assert fake_run.names == ["p-serve"], "an endpoint dies with its process, so it is deployed again"


def changed(job, step: str, **keys):
    """The job with other values in one step."""
    steps = {name: part.model_dump(mode="json") for name, part in job.steps.items()}
    return validate({"kind": "pipeline", "steps": steps | {step: steps[step] | keys}})


def test_a_resumed_pipeline_refuses_to_change_what_has_finished(fake_run, job):
    fake_run.broken = "publish"
    with pytest.raises(RuntimeError):
        pipeline.KIND.run(job, "p")
    assert pipeline.KIND.check_resume(job, "p") == []
    assert pipeline.KIND.check_resume(changed(job, "train", resources={"workers": 2}), "p") == []
    assert pipeline.KIND.check_resume(changed(job, "publish", publish_as="other"), "p") == []
    with pytest.raises(JobError, match=r"has finished step train with epochs 300 \(the job says 2\); give that, or start"):
        pipeline.KIND.check_resume(changed(job, "train", epochs=2), "p")


def test_a_resumed_pipeline_asks_the_step_that_has_begun(fake_run, job, monkeypatch):
    fake_run.broken = "train"
    with pytest.raises(RuntimeError):
        pipeline.KIND.run(job, "p")
    monkeypatch.setattr(type(kind_named("train")), "check_resume",
                        lambda self, spec, run_name: [f"{run_name} on {spec.dataset}"])
    assert pipeline.KIND.check_resume(job, "p") == ["steps.train.p-train on /d-made"]


def test_steps_hold_their_own_directories_while_they_run(fake_run, job, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(type(kind_named("train")), "run", lambda self, spec, run_name: held.append(
        (tmp_path / "runs" / run_name / ".lease").exists()) or OUTPUTS["train"])
    pipeline.KIND.run(job, "p")
    assert held == [True] and not (tmp_path / "runs/p-train/.lease").exists()


def test_run_names_are_new_unless_resumed(fake_run, job):
    execution.check_run_name(job, "p", resume=False)
    with pytest.raises(JobError, match=r"--resume p: there is no run in .*/runs/p; give the name"):
        execution.check_run_name(job, "p", resume=True)
    pipeline.KIND.run(job, "p")
    execution.check_run_name(job, "p", resume=True)
    with pytest.raises(JobError, match=r"--name p: .*/runs/p exists already; go on with it by --resume p"):
        execution.check_run_name(job, "p", resume=False)


def test_a_job_without_state_cannot_be_resumed():
    with pytest.raises(JobError, match="a job of kind predict keeps no state"):
        execution.check_run_name(load_job("kind: predict\nmodel: m\nimages: i\noutput: o\n"), "p", resume=True)


def test_summary_lists_outputs_and_the_next_command(job):
    text = summary(job, "p", OUTPUTS, 61.4)
    assert text.splitlines()[0] == "p: done in 61 s"
    assert text.splitlines()[-1].startswith(
        "next: python submit.py jobs/serve-detector.yaml --set models.detector.model=m:7 --set registry=/r")


def test_an_output_without_figures_has_no_line(job):
    assert "\n  metrics" not in summary(job, "p", OUTPUTS | {"metrics": {"overall": {}}}, 1)
    assert "\n  metrics     ap 0.5" in summary(job, "p", OUTPUTS | {"metrics": {"ap": 0.5}}, 1)


def test_more_models_than_fit_are_refused_before_they_are_deployed(fake_run, tmp_path, monkeypatch):
    models = {f"w{number}": {"model": f"m-w{number}:1"} for number in range(3)}
    monkeypatch.setitem(OUTPUTS, "publish", OUTPUTS["publish"] | {"models": models})
    job = load_job(TEXT.replace("STORAGE", str(tmp_path / "runs")).replace('{m: {model: "${publish.model}"}}',
                                                                           '"${publish.models}"'))
    monkeypatch.setattr(pipeline.local_ray, "may_grow", lambda: False)
    monkeypatch.setattr(pipeline.local_ray, "nodes", lambda: [{"CPU": 2.0}])
    with pytest.raises(JobError, match=r"steps.serve: asks for 3 CPU and 0 GPU \(3 models of 1 replica.*but there are 2 CPU"
                                       r".*lower steps.serve.replicas"):
        pipeline.KIND.run(job, "p")
    assert fake_run.names == ["p-ingest", "p-train", "p-publish"]
    monkeypatch.setattr(pipeline.local_ray, "nodes", lambda: [{"CPU": 3.0}])
    pipeline.KIND.run(job, "p")
    assert fake_run.jobs["serve"].models["w2"].model == "m-w2:1"


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_one_object_of_its_module(name):
    kind = kind_named(name)
    assert isinstance(kind, JobKind) and type(kind).__module__ == KINDS[name]
    assert kind.spec.model_fields["kind"].annotation == Literal[name]


def test_a_page_on_this_machine_is_a_link_and_figures_stay_few():
    assert execution.shown("/runs/a b/report/index.html") == "file:///runs/a%20b/report/index.html"
    assert execution.shown("s3://b/runs/report/index.html") == "s3://b/runs/report/index.html"
    assert execution.shown("/runs/a") == "/runs/a"
    assert execution.shown({"ap": 0.25, "classes": [1], "report": "/r/index.html"}) == "ap 0.25, report file:///r/index.html"
    assert execution.shown({f"figure{number}": number for number in range(7)}).endswith("figure5 5, …")
