"""Publish: registers the folded model, measured on the registered file; refuses a model that differs."""

import json

import pytest
import torch
from conftest import coco_source, make_coco
from serving import CLASSES, SIZE_PX, blind_model, tiny_model

from yolov7.model.reparameterize import reparameterize
from yolov7.checkpoints.weights import save_model
from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.registry import publish as publishing
from yolov7_ray.registry.model_source import load_model
from yolov7_ray.registry.publish import max_relative_difference, publish
from yolov7_ray.registry.registry import Registry
from yolov7_ray.registry.validation import load_validation
from yolov7_ray.data.ingest.spec import IngestSpec
from yolov7_ray.registry.spec import PublishSpec


@pytest.fixture
def run(tmp_path):
    """A finished run with one checkpoint."""
    checkpoint = tmp_path / "run" / "checkpoint-epoch-0003"
    checkpoint.mkdir(parents=True)
    save_model(checkpoint / "ema.safetensors", tiny_model(), CLASSES)
    (checkpoint / "spec.json").write_text(json.dumps({"epochs": 3, "data": {"image_size_px": SIZE_PX}}))
    (checkpoint / "metrics.json").write_text(json.dumps({"ap": 0.25}))
    (tmp_path / "run" / "results.json").write_text(json.dumps(
        {"best_checkpoint": "checkpoint-epoch-0003", "dataset_fingerprint": "abc"}))
    return str(tmp_path / "run")


def spec(run: str, registry: str, **settings) -> PublishSpec:
    return PublishSpec.model_validate(
        {"kind": "publish", "model": run, "registry": registry, "publish_as": "shapes"} | settings)


def test_published_model_is_folded_and_has_its_whole_record(run, place, capsys):
    outputs = publish(spec(run, place), "test")
    assert (outputs["model"], outputs["version"], outputs["alias"]) == ("shapes:1", "1", "latest")
    assert outputs["parity"] <= 1e-4
    version = Registry(place).resolve("shapes@latest")
    assert version.version == "1" and version.classes == CLASSES and version.image_size_px == SIZE_PX
    assert version.dataset_fingerprint == "abc" and version.training_metrics == {"ap": 0.25} and version.metrics == {}
    assert version.spec["epochs"] == 3 and version.source.endswith("run/checkpoint-epoch-0003")
    assert version.parity == {"max_relative_difference": outputs["parity"], "tolerance": 1e-3, "num_images": 2,
                              "images": "noise"}
    loaded = load_model(outputs["model"], place)
    assert loaded.model.is_folded
    file = load_model(storage.join(place, "shapes/1/model.safetensors"))
    assert loaded.image_size_px == file.image_size_px == SIZE_PX
    images = torch.rand(1, 3, SIZE_PX, SIZE_PX)
    torch.testing.assert_close(loaded.model(images), tiny_model()(images).detach(), rtol=1e-3, atol=1e-3)
    said = capsys.readouterr().out
    assert "tolerance 1e-03" in said and "registered shapes:1" in said and "shapes@latest is now shapes:1" in said


def test_each_publication_is_a_new_version(run, tmp_path):
    registry = str(tmp_path / "registry")
    publish(spec(run, registry), "test")
    outputs = publish(spec(run, registry, alias=None), "test")
    assert outputs["model"] == "shapes:2" and Registry(registry).aliases("shapes") == {"latest": "1"}
    publish(spec(run, registry, alias="best"), "test")
    assert Registry(registry).aliases("shapes") == {"latest": "1", "best": "3"}


@pytest.mark.parametrize("damage", [1.01, float("nan")])
def test_model_that_folds_badly_is_refused(run, tmp_path, monkeypatch, damage):
    def folds_badly(model):
        folded = reparameterize(model)
        with torch.no_grad():
            folded.head.lead_predictors[0].bias.mul_(damage)
        return folded

    monkeypatch.setattr(publishing, "reparameterize", folds_badly)
    registry = str(tmp_path / "registry")
    with pytest.raises(JobError, match="more than parity_tolerance 1e-03; nothing was registered"):
        publish(spec(run, registry), "test")
    assert Registry(registry).names() == []


def test_difference_is_relative_to_each_output():
    trained, images = tiny_model(), torch.rand(1, 3, SIZE_PX, SIZE_PX)
    assert max_relative_difference(trained, trained, images) == 0
    folded = reparameterize(trained)
    with torch.no_grad():
        folded.head.lead_predictors[0].bias.add_(0.05)
        of_raw_outputs = 0.05 / trained.raw_outputs(images)[0].abs().max().item()
        of_scores = (trained(images) - folded(images))[..., 4:].abs().max() / trained(images)[..., 4:].abs().max()
    expected = max(of_raw_outputs, of_scores.item())
    assert max_relative_difference(trained, folded, images) == pytest.approx(expected, rel=0.01)


def test_publish_errors(run, tmp_path):
    save_model(tmp_path / "folded.safetensors", blind_model(), CLASSES)
    registry = str(tmp_path / "registry")
    with pytest.raises(JobError, match="is folded already"):
        publish(spec(str(tmp_path / "folded.safetensors"), registry), "test")
    with pytest.raises(JobError, match="100 is not a multiple of the model's largest stride; give a multiple of 32"):
        publish(spec(run, registry, image_size_px=100), "test")
    with pytest.raises(JobError, match="holds no trained model"):
        publish(spec(str(tmp_path / "nothing"), registry), "test")
    assert Registry(registry).names() == []


@pytest.mark.ray
def test_ap_is_measured_on_the_artifact(run, tmp_path, ray_session, monkeypatch):
    from yolov7_ray.data.ingest.ingest import ingest

    monkeypatch.setenv("YOLOV7_CACHE_DIR", str(tmp_path / "cache"))
    make_coco(tmp_path / "coco", num_images=4)
    dataset = str(tmp_path / "dataset")
    ingest(IngestSpec(kind="ingest", source=coco_source(tmp_path / "coco"), dataset=dataset), "test")
    registry = str(tmp_path / "registry")
    publish(spec(run, registry, dataset=dataset), "test")
    version = Registry(registry).resolve("shapes")
    overall = version.metrics["overall"]
    assert overall["num_images"] == 4 and overall["num_objects"] > 0 and 0 <= overall["ap"] < 0.5
    assert version.parity["num_images"] == 4 and version.parity["images"] == f"{dataset} val"
    assert version.metrics["dataset"] == dataset and version.metrics["fingerprint"]
    assert load_validation(registry, "shapes").num_images == 4 and load_validation(registry, "shapes").counts.shape == (2, 20)
    with pytest.raises(JobError, match="split: 'test' is unknown; the dataset has train, val"):
        publish(spec(run, registry, dataset=dataset, split="test"), "test")

    save_model(tmp_path / "birds.safetensors", tiny_model(), ["bird", "fish"])
    with pytest.raises(JobError, match="its classes are cat, dog, those of .* are bird, fish"):
        publish(spec(str(tmp_path / "birds.safetensors"), registry, dataset=dataset, image_size_px=SIZE_PX), "test")
    assert Registry(registry).versions("shapes") == ["1"]
