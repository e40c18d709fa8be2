"""Output of --dry-run, and the errors that it finds before anything is started."""

import re

import pytest

from yolov7.model.detector import build_model
from yolov7.checkpoints.weights import save_model
from yolov7_ray import storage
from yolov7_ray.data.manifest import MANIFEST, Manifest, Split
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import load_job
from yolov7_ray.jobs.dry_run import plan


@pytest.fixture
def dataset(tmp_path) -> str:
    """A manifest of three classes; `val` has no object of the third, `test` has no images."""
    splits = {"train": Split((), 100, 350, (200, 100, 50)), "val": Split((), 30, 60, (40, 20, 0)),
              "test": Split((), 0, 0, (0, 0, 0))}
    uri = str(tmp_path / "dataset")
    storage.write_json(storage.join(uri, MANIFEST), Manifest(("cat", "dog", "owl"), (1, 2, 3), splits, {}).to_json())
    return uri


@pytest.fixture
def model(tmp_path) -> str:
    """A small model of three classes."""
    from yolov7.architectures.family import architecture

    path = tmp_path / "model.safetensors"
    save_model(path, build_model(architecture("yolov7-tiny").scaled(width=0.25), 3), ["cat", "dog", "owl"])
    return str(path)


def lines(text: str, *overrides: str) -> dict[str, str]:
    """Key -> text of the block of a one-job plan."""
    block = plan(load_job(text, list(overrides))).rsplit("\n\n", 1)[1].splitlines()
    return {line[2:12].strip(): line[12:] for line in block if line.startswith("  ")}


def train(dataset: str) -> str:
    return f"kind: train\ndataset: {dataset}\nmodel: {{architecture: yolov7-tiny}}\nbatch_size: 16\nepochs: 10\n"


def test_train_plan(dataset):
    text = plan(load_job(train(dataset), ["resources.workers=2", "resources.cpus_per_worker=3"]))
    assert "architecture: yolov7-tiny" in text and text.endswith("this is a dry run.")
    shown = lines(train(dataset), "resources.workers=2", "resources.cpus_per_worker=3")
    assert shown["asks for"] == "6 CPU and 0 GPU (2 workers)"
    assert shown["steps"] == "7 per epoch of 100 images in batches of 16, x 10 epochs = 70; an update every 4"
    assert shown["warning"] == "split 'val' has no object of 'owl'"
    assert "train 100 images, val 30 images; 3 classes (cat, dog, owl)" in shown["dataset"]


@pytest.mark.parametrize(("overrides", "processes", "warned"), [
    (["resources.gpus_per_worker=1"], 0, True),
    (["resources.gpus_per_worker=1", "data.loader_processes=2"], 2, False),
    (["resources.gpus_per_worker=1", "resources.cpus_per_worker=8"], 7, False),
    (["resources.cpus_per_worker=0.5"], 0, False),
    (["resources.cpus_per_worker=64"], 16, False),
])
def test_a_gpu_without_loader_processes(dataset, overrides, processes, warned):
    spec = load_job(train(dataset), overrides)
    assert spec.data.processes(spec.resources.cpus_per_worker) == processes
    assert ("so the GPU waits for them: set resources.cpus_per_worker to 8 or more" in plan(spec)) == warned


def test_model_costs_match_the_published_ones(dataset):
    """Parameters to the unit and GFLOPs to 0.1 % are checked by the detector's tests; here: that they are shown."""
    three = sum(p.numel() for p in build_model("yolov7-tiny", 3).parameters()) / 1e6
    assert lines(train(dataset))["model"].startswith(f"yolov7-tiny at 640 px: 3 classes, {three:.2f} M parameters, ")
    half = lines(train(dataset), "data.image_size_px=320")["model"]
    gflops = [float(text.split(" GFLOPs")[0].split()[-1]) for text in (lines(train(dataset))["model"], half)]
    assert gflops[0] == pytest.approx(4 * gflops[1], rel=0.01)
    assert "(depth 0.5)" in lines(train(dataset), "model.depth=0.5")["model"]


@pytest.mark.parametrize(("overrides", "message"), [
    (["dataset=/nowhere"], "/nowhere: there is no dataset here; run an ingest job"),
    (["data.val_split=valid"], "split: 'valid' is unknown; the dataset has train, val, test"),
    (["data.val_split=test"], "split 'test': has no images; ingest some, or name another split"),
    (["model.weights=/nowhere.safetensors"], "/nowhere.safetensors: model file does not exist"),
])
def test_missing_inputs_are_found(dataset, overrides, message):
    with pytest.raises(JobError) as error:
        plan(load_job(train(dataset), overrides))
    assert message in str(error.value)


def test_train_plan_shows_loaded_and_frozen_parameters(dataset, model):
    small = ["model.width=0.25", "model.freeze=[backbone, neck.pyramid_pooling]"]
    shown = lines(train(dataset), *small, f"model.weights={model}")
    assert shown["weights"].startswith(f"{model}, trained on 3 classes: ")
    taken, tensors = re.search(r"(\d+) of (\d+) tensors are taken over", shown["weights"]).groups()
    assert taken == tensors, "the classes agree, so all of them"
    assert re.fullmatch(r"backbone, neck.pyramid_pooling: 0.\d\d of 0.38 M parameters stay as they are",
                        shown["frozen"])
    assert "stays random: set model.weights" in plan(load_job(train(dataset), small))


def test_train_plan_shows_how_anchors_fit(shapes_dataset):
    def anchors(*overrides: str) -> str:
        return plan(load_job(train(shapes_dataset), ["data.image_size_px=64", *overrides]))

    far = str([[[500, 500]], [[600, 600]], [[700, 700]]])
    assert re.search(r"anchors   default: best possible recall [01]\.\d{4}, fitness 0\.\d{3} on \d+ boxes", anchors())
    text = anchors(f"model.anchors={far}")
    assert "given: best possible recall 0.0000" in text
    assert "warning   no anchor fits 100.0% of the boxes, which are never learnt: set model.anchors to auto" in text
    auto = re.search(r"auto: best possible recall ([\d.]+), .* \(the default ones: best possible recall ([\d.]+)",
                     anchors("model.anchors=auto"))
    assert float(auto[1]) > 0.98 and float(auto[1]) >= float(auto[2])
    assert "never learnt" not in anchors("model.anchors=auto")


def test_evaluate_plan_compares_classes(dataset, model, tmp_path):
    text = f"kind: evaluate\nmodel: {model}\ndataset: {dataset}\n"
    assert lines(text)["model"].startswith(f"{model}: yolov7-tiny")
    other = str(tmp_path / "other")
    manifest = Manifest(("cat", "dog"), (1, 2), {"val": Split((), 3, 3, (2, 1))}, {})
    storage.write_json(storage.join(other, MANIFEST), manifest.to_json())
    with pytest.raises(JobError, match="knows the classes cat, dog, owl, while .*other has cat, dog; use a dataset"):
        plan(load_job(text, [f"dataset={other}"]))


def test_tune_plan_shows_the_search(dataset):
    text = f"kind: tune\ntrain: {{kind: train, dataset: {dataset}, epochs: 4}}\n" \
           "search: {optimizer.learning_rate: {loguniform: [1e-3, 1e-1]}}\nbudget: {trials: 7}\n"
    shown = lines(text)
    assert shown["trials"] == "7, of at most 4 epochs"
    assert shown["search"] == "optimizer.learning_rate: loguniform 0.001, 0.1"


def test_pipeline_plan_knows_what_earlier_steps_make():
    text = plan(load_job("""kind: pipeline
steps:
  ingest: {kind: ingest, dataset: /made, source: {format: shapes, splits: {train: 64, val: 8}}}
  train: {kind: train, dataset: "${ingest.dataset}", model: {architecture: yolov7-tiny}, batch_size: 16}
  publish: {kind: publish, model: "${train.checkpoint}", registry: /r, publish_as: m, dataset: "${ingest.dataset}"}
"""))
    assert "/made, made by an earlier step" in text
    assert "4 classes" in text and "4 per epoch of 64 images" in text
    assert "${train.checkpoint}, made by an earlier step" in text


def test_pipeline_plan_finds_a_missing_split():
    with pytest.raises(JobError, match="makes no split 'val'; it makes train"):
        plan(load_job("""kind: pipeline
steps:
  ingest: {kind: ingest, dataset: /made, source: {format: shapes, splits: {train: 64}}}
  train: {kind: train, dataset: "${ingest.dataset}"}
"""))


def test_ingest_plan_finds_a_missing_source(tmp_path):
    text = f"kind: ingest\ndataset: {tmp_path}/d\nsource: {{format: coco, uri: {tmp_path}}}\n"
    with pytest.raises(JobError, match="source.splits.train: .*instances_train2017.json does not exist; "
                                       "set source.uri"):
        plan(load_job(text))
    for split in ("train", "val"):
        storage.write_bytes(f"{tmp_path}/annotations/instances_{split}2017.json", b"{}")
    assert lines(text)["dataset"] == f"{tmp_path}/d will be written"


def test_predict_plan_finds_missing_images(model):
    with pytest.raises(JobError, match="images: /nowhere does not exist or is empty"):
        plan(load_job(f"kind: predict\nmodel: {model}\nimages: /nowhere\noutput: /out\n"))


def test_serve_plan(model):
    shown = lines(f"kind: serve\nmodels: {{m: {{model: {model}}}}}\ntoken_env: T\n")
    assert shown["endpoint"] == "http://127.0.0.1:8000, bearer token authentication"
