import json
import random

import pytest
import torch
from golden_models import FACTS, official_shapes, official_state_dict, randomize_norms

from yolov7 import build_model, load_official_state_dict
from yolov7.model.reparameterize import reparameterize
from yolov7.architectures.family import architecture
from yolov7.checkpoints.official_names import official_names
from yolov7.checkpoints.weights import load_model, load_weights, save_model, save_weights, trained_image_size_px

OFFICIAL = [name for name in FACTS if name != "yolov7-tiny-silu"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_official_tensor_has_its_place(name):
    with torch.device("meta"):
        model = build_model(name)
        load_official_state_dict(model, {key: torch.empty(shape) for key, shape in official_shapes(name).items()})
    assert list(official_names(model)) == list(official_shapes(name))


def test_values_arrive_by_name_whatever_the_order_and_precision():
    state_dict, model = official_state_dict("yolov7-tiny"), build_model("yolov7-tiny")
    shuffled = [(key, value.half() if value.is_floating_point() else value) for key, value in state_dict.items()]
    random.Random(0).shuffle(shuffled)
    load_official_state_dict(model, dict(shuffled))
    ours = {
        "backbone.stem.0.conv.weight": "model.0.conv.weight",
        "backbone.stages.0.block.steps.1.0.norm.running_var": "model.5.bn.running_var",
        "neck.pyramid_pooling.bypass.conv.weight": "model.29.conv.weight",
        "head.lead_convs.2.norm.bias": "model.76.bn.bias",
        "head.lead_predictors.1.weight": "model.77.m.1.weight",
        "head.lead_predictors.1.addition": "model.77.ia.1.implicit",
        "head.lead_predictors.0.multiplication": "model.77.im.0.implicit",
    }
    loaded = model.state_dict()
    for own_key, key in ours.items():
        assert loaded[own_key].dtype == torch.float32
        assert torch.equal(loaded[own_key], state_dict[key].half().float()), own_key


def test_anchors_come_from_the_checkpoint():
    state_dict, model = official_state_dict("yolov7-tiny"), build_model("yolov7-tiny")
    state_dict["model.77.anchor_grid"] += 3
    load_official_state_dict(model, state_dict)
    assert model.anchors_px.tolist() == (torch.tensor(FACTS["yolov7-tiny"]["anchors_px"]) + 3).tolist()


def test_official_weights_that_do_not_fit_are_listed_by_name():
    state_dict, model = official_state_dict("yolov7-tiny"), build_model("yolov7-tiny")
    with pytest.raises(ValueError, match=r"do not fit yolov7 with 80 classes in training form: \d+ missing: .* more"):
        load_official_state_dict(build_model("yolov7"), state_dict)
    misshapen = r"9 misshapen: model.77.m.0.weight is \(255, 128, 1, 1\) and needs \(75, 128, 1, 1\), "
    with pytest.raises(ValueError, match=misshapen):
        load_official_state_dict(build_model("yolov7-tiny", 20), state_dict)
    with pytest.raises(ValueError, match="in folded form: .* unexpected: model.0.bn.weight"):
        load_official_state_dict(reparameterize(model), state_dict)
    state_dict["model.0.conv.wight"] = state_dict.pop("model.0.conv.weight")
    del state_dict["model.77.ia.2.implicit"]
    state_dict["model.5.bn.bias"] = torch.zeros(7)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_official_state_dict(model, state_dict)
    assert str(error.value) == (
        "official weights do not fit yolov7-tiny with 80 classes in training form: "
        "2 missing: model.0.conv.weight, model.77.ia.2.implicit; 1 unexpected: model.0.conv.wight; "
        "1 misshapen: model.5.bn.bias is (7,) and needs (32,)"
    )
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_names_are_known_for_every_scaling_and_for_no_other_block():
    deeper = build_model(architecture("yolov7-e6e").scaled(depth=1.4, width=0.25), 2)
    names = official_names(deeper)
    assert {own for own in names.values() if own} == set(deeper.state_dict())
    with torch.device("meta"):
        baseline = build_model("yolov3")
    with pytest.raises(ValueError, match="yolov3: no official names are known for"):
        official_names(baseline)


@pytest.mark.parametrize("name", ["yolov7", "yolov7-w6"])
@pytest.mark.parametrize("fold", [False, True])
def test_a_model_file_explains_itself(tmp_path, name, fold):
    model = randomize_norms(build_model(architecture(name).scaled(depth=0.5, width=0.25), 2)).eval()
    model.to(memory_format=torch.channels_last)
    model.anchors_px += 1
    model = reparameterize(model) if fold else model
    save_model(tmp_path / "model.safetensors", model, ["red cell", "thrombocyte ✓"])
    loaded, classes = load_model(tmp_path / "model.safetensors")
    images = torch.rand(1, 3, 64, 64)
    assert classes == ["red cell", "thrombocyte ✓"]
    assert loaded.architecture == model.architecture and loaded.is_folded == fold and not loaded.training
    assert all(p.requires_grad != fold for p in loaded.parameters())
    torch.testing.assert_close(loaded(images), model(images), rtol=1e-5, atol=1e-4)


def test_a_model_file_tells_its_image_size(tmp_path):
    model, path = build_model(architecture("yolov7-tiny").scaled(width=0.25), 1), tmp_path / "model.safetensors"
    save_model(path, model, ["cell"])
    assert trained_image_size_px(path) is None
    for name, record, size_px in (("spec.json", {"data": {"image_size_px": 320}}, 320),
                                  ("version.json", {"image_size_px": 448, "spec": None}, 448)):
        (tmp_path / name).write_text(json.dumps(record))
        assert trained_image_size_px(path) == size_px, "files of version 0.1 do not tell"
    save_model(path, model, ["cell"], image_size_px=192)
    assert trained_image_size_px(path) == 192
    (tmp_path / "x.safetensors").write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match="x.safetensors: not a readable safetensors file"):
        trained_image_size_px(tmp_path / "x.safetensors")


def test_weights_and_metadata_round_trip(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor(3)}
    save_weights(tmp_path / "w.safetensors", tensors, {"epoch": "7"})
    loaded, metadata = load_weights(tmp_path / "w.safetensors")
    assert metadata == {"epoch": "7"}
    assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[key], tensors[key]) for key in tensors)


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ValueError, match=r"x.safetensors: not a readable safetensors file"):
        load_model(path)
    save_weights(path, {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match=r"x.safetensors: format None is unknown"):
        load_model(path)
    model = build_model(architecture("yolov7-tiny").scaled(width=0.25), 2)
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        save_model(path, model, ["one"])
    save_model(path, model, ["one", "two"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_model(path)
