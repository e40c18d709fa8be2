"""The dry run of a search: what is tried, what is known before, and what it costs."""

import pytest
from training_jobs import train_job

from yolov7.architectures.family import architecture
from yolov7.model.describe import count_flops
from yolov7_ray import storage
from yolov7_ray.data.manifest import MANIFEST, Manifest, Split
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.kind import Upcoming
from yolov7_ray.tune import dry_run
from yolov7_ray.tune.job import KIND

SCALES = {"model.width": {"choice": [0.5, 1.0]}, "data.image_size_px": {"choice": [320, 640]}}


@pytest.fixture
def dataset(tmp_path) -> str:
    """A manifest of three classes, 1000 images in train, 100 in val."""
    splits = {"train": Split((), 1000, 3500, (2000, 1000, 500)), "val": Split((), 100, 300, (100, 100, 100))}
    uri = str(tmp_path / "dataset")
    storage.write_json(storage.join(uri, MANIFEST), Manifest(("cat", "dog", "owl"), (1, 2, 3), splits, {}).to_json())
    return uri


def spec(dataset: str, search=SCALES, train=None, **changes):
    job = train_job(dataset, "runs", epochs=20, model={"architecture": "yolov7-tiny"}, data={"image_size_px": 640})
    return validate({"kind": "tune", "train": job | (train or {}), "search": search} | changes)


def lines(job) -> dict[str, list[str]]:
    """Key -> texts of the dry run."""
    found: dict[str, list[str]] = {}
    for key, text in KIND.dry_run(job, Upcoming()):
        found.setdefault(key, []).append(text)
    return found


def test_the_space_and_the_rungs_are_told(dataset):
    shown = lines(spec(dataset, finalists={"epochs": 50, "seeds": 3}))
    assert shown["trials"] == ["20, of at most 20 epochs"]
    assert shown["search"] == ["model.width: choice 0.5, 1.0", "data.image_size_px: choice 320, 640"]
    assert shown["points"] == ["4; all are tried, each once"]
    assert shown["rungs"] == ["trials pause after 1, 3 and 9 epochs"]
    assert shown["start"] == ["defaults: first"]
    assert shown["finalists"] == ["3 trials of the front, 50 epochs, 3 seeds each"]
    assert "model" in shown and "steps" in shown, "those of the train job"
    assert lines(spec(dataset, budget={"trials": 3}))["points"] == ["4; none is tried twice"]
    rate = {"optimizer.learning_rate": {"loguniform": [0.001, 0.1]}}
    assert lines(spec(dataset, rate))["points"] == ["without number; none is tried twice"]
    short = lines(spec(dataset, train={"epochs": 3}, budget={"hours": 0.5}))
    assert (short["trials"], short["rungs"]) == (["20, of at most 3 epochs, in at most 0.5 hours"],
                                                 ["trials pause after 1 epoch"])
    assert "rungs" not in lines(spec(dataset, algorithm="grid"))
    assert lines(spec(dataset, grace_epochs=20))["rungs"] == ["none: every trial is trained in full"]


def test_compute_counts_forward_backward_and_evaluations(dataset):
    tiny = architecture("yolov7-tiny")
    full = [20 * (3 * 1000 + 100) * count_flops(tiny.scaled(width=width), size_px, 3) / 1e15
            for width in (0.5, 1.0) for size_px in (320, 640)]
    mean = sum(full) / 4
    [text] = lines(spec(dataset, finalists={"count": 2, "epochs": 50, "seeds": 3}))["compute"]
    assert text == (f"{mean:.3g} PFLOPs a trial ({full[0]:.3g} to {full[3]:.3g} by the model); 4 trials: in full "
                    f"{4 * mean:.3g}; at share 0.25 {mean:.3g}; finalists {15 * mean:.3g} PFLOPs")
    assert full[3] == pytest.approx(16 * full[0], rel=0.2) and full[1] == pytest.approx(4 * full[0])
    [text] = lines(spec(dataset, algorithm="grid"))["compute"]
    assert text.endswith(f"4 trials: in full {4 * mean:.3g} PFLOPs"), "a grid stops no trial early"
    rare = spec(dataset, train={"evaluation": {"every_epochs": 5}, "data": {"image_size_px": 640, "max_images": 500}})
    assert dry_run.petaflops(rare.train, {"train": 1000, "val": 100}, 3, 20) == pytest.approx(
        20 * (3 * 500 + 100 / 5) * count_flops(tiny, 640, 3) / 1e15)


@pytest.mark.parametrize(("gpus", "budget", "key", "expected"), [
    (0, {}, "CPU hours", "a CPU core: in full 10, at share 0.25 2.5; at 0.05 TFLOPS, which is rough"),
    (0, {"tflops": 0.5}, "CPU hours", "a CPU core: in full 1, at share 0.25 0.25; at 0.5 TFLOPS (budget.tflops)"),
    (1, {"tflops": 5}, "GPU hours", "a GPU: in full 0.1, at share 0.25 0.025; at 5 TFLOPS (budget.tflops)"),
    (1, {}, "GPU hours", "NVIDIA A100: in full 0.016, at share 0.25 0.004; NVIDIA H100: in full 0.0051, "),
    (1, {}, "GPU hours", "at 10% of the published bf16 peak (121, 312, 989 TFLOPS), which is rough: set budget.tflops"),
])
def test_hours_follow_from_the_device(gpus, budget, key, expected):
    job = spec("data", train={"resources": {"gpus_per_worker": gpus}}, budget=budget)
    found = dry_run.hours_line(job, {"in full": 1.8, "at share 0.25": 0.45})  # 1.8e15 / 0.05e12 = 36000 s
    assert found[0] == key and expected in found[1]


@pytest.mark.parametrize(("value", "digits", "text"), [
    (0.012345, 3, "0.0123"), (12.345, 2, "12"), (345.6, 2, "346"), (345.6, 3, "346"), (1234567.0, 3, "1,234,567")])
def test_large_numbers_are_written_out(value, digits, text):
    assert dry_run.number(value, digits) == text


def test_bounds_that_no_model_keeps_are_found(dataset):
    wide = count_flops(architecture("yolov7-tiny").scaled(width=1.0), 320, 3, folded=True) / 1e9
    assert lines(spec(dataset, constraints={"gflops": f"<= {wide:.6f}", "latency_ms": "<= 1"}))["bounds"] == [
        f"gflops <= {wide:.6f}".rstrip("0") + ", latency_ms <= 1: 2 of 4 points keep those that can be counted now"]
    with pytest.raises(JobError, match="constraints: none of 4 points of the search keeps them, e.g. parameters 1.*e.06 "
                                       "is not <= 1000; loosen them"):
        lines(spec(dataset, constraints={"parameters": "<= 1000"}))


def test_a_class_that_the_dataset_lacks_is_found(dataset):
    KIND.check_inputs(spec(dataset, objectives={"ap/owl": "max"}), Upcoming())
    with pytest.raises(JobError) as error:
        KIND.check_inputs(spec(dataset, objectives={"ap/cow": "max"}), Upcoming())
    assert str(error.value) == f"objectives.ap/cow: is no class of {dataset}; choose ap/cat, ap/dog, ap/owl"


def test_a_large_space_is_sampled(dataset, monkeypatch):
    counted = []
    monkeypatch.setattr(dry_run, "petaflops", lambda job, *_: counted.append(job.optimizer.learning_rate) or 2.0)
    [text] = lines(spec(dataset, {"optimizer.learning_rate": {"loguniform": [0.001, 0.1]}}))["compute"]
    assert text == "2 PFLOPs a trial; 20 trials: in full 40; at share 0.25 10 PFLOPs"
    assert len(set(counted)) == dry_run.MOST_COUNTED


def test_costs_are_told_where_the_dataset_cannot_be_reached():
    job = spec("s3://bucket/d", start_with=["defaults", "s3://bucket/old"])
    reason = {uri: "no answer" for uri in ("s3://bucket/d", "s3://bucket/old")}
    shown = dict(KIND.dry_run(job, Upcoming(unreachable=reason)))
    tiny = architecture("yolov7-tiny")
    mean = sum(20 * 3 * 1e5 * count_flops(tiny.scaled(width=width), size_px) / 1e15
               for width in (0.5, 1.0) for size_px in (320, 640)) / 4
    assert shown["compute"].startswith(f"for each 100,000 images: {dry_run.number(mean)} PFLOPs a trial (")
    assert shown["start"] == "defaults: first"
