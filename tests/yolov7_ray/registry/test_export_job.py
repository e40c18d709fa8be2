"""A model for other programs: the files give what the model gives."""

import hashlib

import pytest
import torch
from serving import CLASSES, tiny_model

from yolov7.checkpoints import weights
from yolov7.model.reparameterize import reparameterize
from yolov7_ray import Detector, storage
from yolov7_ray.errors import JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.kinds import kind_of

@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> str:
    """A model in training form."""
    path = tmp_path_factory.mktemp("model") / "trained.safetensors"
    weights.save_model(path, tiny_model(), CLASSES, image_size_px=64)
    return str(path)


def export(**keys) -> dict:
    job = validate({"kind": "export", **keys})
    return kind_of(job).run(job, "export")


def test_every_format_gives_the_models_outputs_and_says_so(trained, place, capsys):
    output = storage.join(place, "exported")
    made = export(model=trained, output=output, formats=["onnx", "torch", "safetensors"])
    assert made == {"output": output, "onnx": storage.join(output, "model.onnx"), "torch": storage.join(output, "model.pt2"),
                    "safetensors": storage.join(output, "model.safetensors")}
    record = storage.read_json(storage.join(output, "export.json"))
    assert record["classes"] == list(CLASSES) and record["image_size_px"] == 64 and len(record["files"]) == 3
    assert all(difference < 1e-4 for difference in record["differences"].values())
    assert capsys.readouterr().out.count("from the model") == 3
    assert hashlib.sha256(storage.read_bytes(made["onnx"])).hexdigest() == record["files"]["model.onnx"]["sha256"]


def test_a_detector_reads_what_was_exported(trained, tmp_path):
    made = export(model=trained, output=str(tmp_path), any_size=True)
    image = (torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1)) * 255).byte().numpy()
    folded = tmp_path / "folded.safetensors"
    weights.save_model(folded, reparameterize(weights.load_model(trained)[0]), CLASSES, image_size_px=64)
    one, other = (Detector(str(path), confidence=0.001)(image) for path in (made["onnx"], folded))
    assert len(one) == len(other) > 0 and one.names == other.names
    assert abs(one.scores - other.scores).max() < 1e-4


def test_suppression_is_in_the_graph_where_asked_for(trained, tmp_path):
    export(model=trained, output=str(tmp_path), formats=["onnx", "torch"], nms=True, confidence_threshold=0.001)
    assert torch.export.load(tmp_path / "model.pt2").module()(torch.rand(2, 3, 64, 64)).shape[1] == 7


@pytest.mark.parametrize("keys, message", [
    ({"image_size_px": 100}, "image_size_px: 100 does not fit; give a multiple of 32"),
    ({"tolerance": 1e-12}, "nothing was written; raise tolerance"),
    ({"formats": ["onnx", "onnx"]}, "names one twice"), ({"model": "runs/none"}, "holds no trained model")])
def test_what_cannot_be_exported_leaves_nothing(trained, tmp_path, keys, message):
    with pytest.raises(JobError, match=message):
        export(**{"model": trained, "output": str(tmp_path / "out")} | keys)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
