"""Several models of a search are published under names by size; one whose AP is below the gate is not."""

from pathlib import Path

import pytest
import torch
from conftest import coco_source, ingest_here, jpeg, write_coco_json
from serving import CLASSES, SIZE_PX, expected_boxes, tiny_model

from yolov7.checkpoints.weights import save_model
from yolov7_ray import storage
from yolov7_ray.errors import JobError
from yolov7_ray.jobs import dry_run
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.registry.job import KIND
from yolov7_ray.registry.publish import publish
from yolov7_ray.registry.registry import Registry


@torch.no_grad()
def seeing_model():
    """In training form: sees a dog in each cell of the last level, as `blind_model` does."""
    model = tiny_model()
    for level, predictor in enumerate(model.head.lead_predictors):
        predictor.weight.zero_()
        bias = predictor.bias.view(model.head.num_anchors, -1)
        bias[:, :4], bias[:, 4:] = 0, -20
        if level == len(model.head.lead_predictors) - 1:
            bias[0, 4] = bias[0, 5 + CLASSES.index("dog")] = torch.logit(torch.tensor(0.9))
    model.anchors_px[-1, 0] = torch.tensor([16.0, 8.0])
    return model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    """Two images with dogs where the seeing model sees them."""
    root = tmp_path_factory.mktemp("coco")
    (root / "val").mkdir()
    images, annotations = [], []
    for number in (1, 2):
        (root / "val" / f"{number}.jpg").write_bytes(jpeg(number, SIZE_PX, SIZE_PX))
        images.append({"id": number, "file_name": f"{number}.jpg", "height": SIZE_PX, "width": SIZE_PX})
        for index, (left, top, right, bottom) in enumerate(expected_boxes(SIZE_PX, SIZE_PX).tolist()):
            annotations.append({"id": 10 * number + index, "image_id": number, "category_id": 7, "iscrowd": 0,
                                "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)})
    write_coco_json(root / "val.json", images, annotations)
    uri = str(root / "dataset")
    ingest_here(coco_source(root, ("val",)), uri)
    return uri


@pytest.fixture
def front(tmp_path) -> str:
    """A front of a good and a useless model."""
    members = []
    for name, model in (("w025", seeing_model()), ("w050", tiny_model())):
        checkpoint = tmp_path / "search/trials" / name / "checkpoint-epoch-0003"
        checkpoint.mkdir(parents=True)
        save_model(checkpoint / "ema.safetensors", model, CLASSES, image_size_px=SIZE_PX)
        members.append({"name": name, "model": str(checkpoint), "job": "", "trial": name, "figures": {"ap": 0.5}})
    storage.write_json(str(tmp_path / "search/front/front.json"), members)
    return str(tmp_path / "search/front")


def job(model: str, registry: Path, **changes) -> dict:
    return {"kind": "publish", "model": model, "registry": str(registry), "publish_as": "shapes"} | changes


def test_each_member_is_published_under_its_name(front, tmp_path):
    spec = validate(job(front, tmp_path / "registry"))
    outputs = publish(spec, "test")
    assert outputs["models"] == {"w025": {"model": "shapes-w025:1"}, "w050": {"model": "shapes-w050:1"}}
    assert (outputs["model"], outputs["version"]) == ("shapes-w025:1", "1")
    registry = Registry(str(tmp_path / "registry"))
    assert registry.names() == ["shapes-w025", "shapes-w050"] and registry.resolve("shapes-w050@latest").version == "1"
    command = KIND.next_command(spec, outputs)
    assert "--set \"models={w025: {model: 'shapes-w025:1'}, w050: {model: 'shapes-w050:1'}}\" --set registry=" in command


def test_a_single_model_is_served_in_the_same_way(front, tmp_path):
    checkpoint = storage.read_json(f"{front}/front.json")[0]["model"]
    assert publish(validate(job(checkpoint, tmp_path / "registry")), "test")["models"] == {
        "shapes": {"model": "shapes:1"}}


def test_models_below_the_gate_are_named_and_left_out(front, dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("YOLOV7_CACHE_DIR", str(tmp_path / "cache"))
    gate = {"dataset": dataset, "least_ap": 0.5}
    outputs = publish(validate(job(front, tmp_path / "registry", **gate)), "test")
    assert outputs["models"] == {"w025": {"model": "shapes-w025:1"}} and outputs["metrics"]["overall"]["ap"] > 0.8
    assert Registry(str(tmp_path / "registry")).names() == ["shapes-w025"]
    assert "w050/checkpoint-epoch-0003: its AP 0.000 is below least_ap 0.5; nothing was registered" in \
        capsys.readouterr().out
    useless = storage.read_json(f"{front}/front.json")[1]
    with pytest.raises(JobError, match="its AP 0.000 is below least_ap 0.5; nothing was registered"):
        publish(validate(job(useless["model"], tmp_path / "registry", **gate)), "test")
    storage.write_json(f"{front}/front.json", [useless])
    with pytest.raises(JobError, match="none of its 1 models is registered: .*is below least_ap"):
        publish(validate(job(front, tmp_path / "registry", **gate)), "test")
    with pytest.raises(JobError, match="least_ap: 0.5 needs images to be measured on; give dataset"):
        validate(job(front, tmp_path / "registry", least_ap=0.5))


def test_a_dry_run_names_every_model_and_version(front, tmp_path):
    text = dry_run.plan(validate(job(front, tmp_path / "registry")))
    assert text.count("at 64 px: 2 classes, 0.31 M parameters") == 2, text
    assert f"the next of shapes-w025 in {tmp_path}/registry, alias latest" in text and "shapes-w050 in" in text
