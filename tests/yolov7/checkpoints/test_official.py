"""Official checkpoints become models of ours: every form, place and precision, through files."""

import sys

import numpy as np
import pytest
import torch
from golden_models import GOLDENS, filled_model, golden_image, official_shapes, official_state_dict, randomize_norms
from official_files import as_official, official_module, save_official, stand_in_modules
from torch import nn

from yolov7 import ARCHITECTURES, build_model
from yolov7.model.reparameterize import reparameterize
from yolov7.architectures.family import architecture
from yolov7.checkpoints.official import find_architecture, import_official, OfficialWeights

SMALL = {name: architecture(name).scaled(depth=0.34, width=0.25) for name in ("yolov7", "yolov7-w6", "yolov7-e6e")}


def trained(name, num_classes=3):
    return randomize_norms(build_model(SMALL[name], num_classes)).eval()


def images():
    return torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))


def assert_same_outputs(model, other):
    with torch.no_grad():
        torch.testing.assert_close(model(images()), other(images()), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_official_file_gives_the_official_outputs(tmp_path, legacy):
    state_dict = official_state_dict("yolov7-tiny")
    names = [f"name {i}" for i in range(80)]
    path = save_official(
        tmp_path / "tiny.pt", state_dict, names=names, activation=nn.LeakyReLU(0.1), legacy=legacy, ema=None
    )
    with pytest.raises(ModuleNotFoundError, match="models"):
        torch.load(path, weights_only=False)
    model, classes = import_official(path)
    assert model.architecture == ARCHITECTURES["yolov7-tiny"] and classes == names and not model.training
    expected = filled_model("yolov7-tiny").state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())
    if legacy:
        return
    golden = np.load(GOLDENS / "yolov7-tiny.npz")
    with torch.no_grad():
        gap = np.abs(model(golden_image())[0].numpy()[golden["pred_idx"]] - golden["pred_rows"])
    box_gap, score_gap = golden["pred_maxdiff_f32_f64"]
    assert gap[:, :4].max() <= 5 * box_gap and gap[:, 4:].max() <= 5 * score_gap


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_is_widened(tmp_path, name):
    model = trained(name)
    path = save_official(tmp_path / "half.pt", as_official(model), half=True, names={0: "a", 1: "b", 2: "c"})
    loaded, classes = import_official(path, SMALL[name])
    assert classes == ["a", "b", "c"] and loaded.num_classes == 3
    own, rounded = model.state_dict(), loaded.state_dict()
    assert all(rounded[key].dtype == own[key].dtype for key in own)
    assert all(torch.equal(rounded[key], own[key].half().to(own[key].dtype)) for key in own)


def deployed_form(state_dict, num_auxiliary):
    """Without implicit vectors and without auxiliary layers, which stand right before the detection layer."""
    detection = max(int(key.split(".")[1]) for key in state_dict)
    deployed = {}
    for key, tensor in state_dict.items():
        _, number, *rest = key.split(".")
        if int(number) == detection and rest[0] not in ("m2", "ia", "im"):
            deployed[".".join(["model", str(detection - num_auxiliary), *rest])] = tensor
        elif int(number) < detection - num_auxiliary:
            deployed[key] = tensor
    return deployed


@pytest.mark.parametrize("name", SMALL)
def test_deployed_weights_can_be_trained_on(tmp_path, name):
    model = trained(name)
    for predictor in model.head.lead_predictors:
        predictor.weight.data, predictor.bias.data = predictor.folded_weights()
        predictor.addition.data.zero_()
        predictor.multiplication.data.fill_(1)
    deployed = deployed_form(as_official(model), len(model.head.auxiliary_convs))
    loaded, _ = import_official(save_official(tmp_path / "deployed.pt", deployed, key="ema"), SMALL[name])
    assert not loaded.is_folded and not loaded.architecture.has_auxiliary
    assert_same_outputs(loaded, model)
    assert_same_outputs(reparameterize(loaded), reparameterize(model))
    assert len(loaded.train()(images())) == len(loaded.strides)


@pytest.mark.parametrize("name", SMALL)
def test_fused_weights_become_a_folded_model(tmp_path, name):
    folded = reparameterize(trained(name))
    fused = as_official(folded)
    if name == "yolov7":  # a folded RepConv has a name of its own
        last = max(int(key.split(".")[1]) for key in fused)
        for number in range(last - 3, last):
            for leaf in ("weight", "bias"):
                fused[f"model.{number}.rbr_reparam.{leaf}"] = fused.pop(f"model.{number}.conv.{leaf}")
    loaded, _ = import_official(save_official(tmp_path / "fused.pt", fused), SMALL[name])
    assert loaded.is_folded
    assert_same_outputs(loaded, folded)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_a_file_saved_after_fusing_is_imported_with_all_that_fusing_left(tmp_path, name, legacy):
    """Bound methods as `forward`, implicit vectors that are multiplied in, and auxiliary layers: none is of use."""
    model = trained(name)
    folded, official = reparameterize(model), as_official(model)
    shift = len(model.head.auxiliary_convs)
    detection = max(int(key.split(".")[1]) for key in official)
    fused = {key.replace(f"model.{detection - shift}.", f"model.{detection}."): tensor
             for key, tensor in as_official(folded).items()}
    fused |= {key: tensor for key, tensor in official.items() if key.split(".")[2] in ("m2", "ia", "im")}
    for number in range(detection - shift, detection):
        fused |= {f"model.{number}.conv.weight": official[f"model.{number}.conv.weight"],
                  f"model.{number}.conv.bias": official[f"model.{number}.bn.bias"]}
    assert any(".ia." in key for key in fused) and any(".m2." in key for key in fused) == (shift > 0)
    path = save_official(tmp_path / "fused.pt", fused, bound=True, legacy=legacy)
    torch.save({"state_dict": fused}, tmp_path / "weights.pt")
    for file in (path, tmp_path / "weights.pt"):
        loaded, _ = import_official(file, SMALL[name])
        assert loaded.is_folded
        assert_same_outputs(loaded, folded)


def test_params_after_fusing_are_those_of_the_folded_model_and_the_implicit_vectors():
    """36,907,898 in the reference; what we drop of them are 256 + 512 + 1024 + 3 x 255 of the implicit vectors."""
    with torch.device("meta"):
        folded = build_model(ARCHITECTURES["yolov7"], 80, folded=True)
    assert sum(parameter.numel() for parameter in folded.parameters()) == 36_907_898 - 1792 - 765


@pytest.mark.parametrize("wrap", [
    lambda weights: weights, lambda weights: {"state_dict": weights, "epoch": 3}, lambda weights: {"model": weights},
    lambda weights: {"model": None, "ema": weights}, lambda weights: {f"module.{k}": v for k, v in weights.items()},
])  # fmt: skip
def test_a_state_dict_works_wherever_it_stands(tmp_path, wrap):
    model = trained("yolov7")
    torch.save(wrap(as_official(model)), tmp_path / "weights.pt")
    loaded, classes = import_official(tmp_path / "weights.pt", SMALL["yolov7"])
    assert classes == ["class 0", "class 1", "class 2"]
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in loaded.state_dict().items())


def test_the_average_is_preferred(tmp_path):
    model, average = trained("yolov7"), trained("yolov7")
    with torch.no_grad():
        average.backbone.stem[0].conv.weight.add_(1)
    with stand_in_modules() as modules:
        content = {"model": official_module(as_official(model), modules),
                   "ema": official_module(as_official(average), modules)}  # fmt: skip
        torch.save(content, tmp_path / "both.pt")
    loaded, _ = import_official(tmp_path / "both.pt", SMALL["yolov7"])
    assert torch.equal(loaded.backbone.stem[0].conv.weight, average.backbone.stem[0].conv.weight)


def test_a_module_alone_works_and_names_that_do_not_fit_are_left(tmp_path):
    model = trained("yolov7")
    with stand_in_modules() as modules:
        torch.save(official_module(as_official(model), modules, names=["one"]), tmp_path / "module.pt")
    _, classes = import_official(tmp_path / "module.pt", SMALL["yolov7"])
    assert classes == ["class 0", "class 1", "class 2"]


def on_meta(name, num_classes=80):
    shapes = official_shapes(name)
    return {
        key: torch.empty([3 * (5 + num_classes) if length == 255 else length for length in shape], device="meta")
        for key, shape in shapes.items()
    }


@pytest.mark.parametrize("name", ["yolov7", "yolov7-d6"])
def test_the_architecture_is_found(name):
    assert find_architecture(OfficialWeights(on_meta(name, 7), None, frozenset())).name == name


def test_the_two_tiny_models_differ_in_their_activation():
    weights = on_meta("yolov7-tiny")
    for activation, name in (("leaky-relu", "yolov7-tiny"), ("silu", "yolov7-tiny-silu")):
        assert find_architecture(OfficialWeights(weights, None, frozenset({activation}))).name == name
    with pytest.raises(ValueError, match="fit yolov7-tiny and yolov7-tiny-silu; name the architecture"):
        find_architecture(OfficialWeights(weights, None, frozenset()))


def test_weights_of_no_architecture_show_the_closest():
    weights = on_meta("yolov7-x")
    del weights["model.0.conv.weight"]
    message = r"fit no architecture; closest are yolov7-x \(1 differences\), .* 1 missing: model.0.conv.weight"
    with pytest.raises(ValueError, match=message):
        find_architecture(OfficialWeights(weights, None, frozenset()))


@pytest.mark.parametrize(("content", "message"), [
    ({"epoch": 3, "model": None}, r"no weights in a dict with keys \['epoch', 'model'\]"),
    ([1, 2], "no weights in a list"),
    ({"model.0.conv.weight": torch.zeros(1)}, "no detection layer"),
    ({"a.anchor_grid": torch.zeros(1, 1, 3, 1, 1, 2), "a.m.0.weight": torch.zeros(16, 1, 1, 1)}, "predicts no classes"),
    ({"a.anchor_grid": torch.zeros(1, 1, 3, 1, 1, 2), "a.m.0.weight": torch.zeros(18, 1, 1, 1)}, "2 unexpected"),
])  # fmt: skip
def test_files_without_official_weights(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"other.pt: .*{message}"):
        import_official(tmp_path / "other.pt", SMALL["yolov7"])


def test_modules_that_hold_themselves(tmp_path):
    with stand_in_modules() as modules:
        module = modules["models.yolo"].Model()
        module._modules["again"] = module
        torch.save({"model": module}, tmp_path / "cycle.pt")
        wide = modules["models.yolo"].Model()
        for _ in range(20):  # two ways through each: a million modules to visit
            outer = modules["models.yolo"].Model()
            outer._modules |= {"a": wide, "b": wide}
            wide = outer
        torch.save({"model": wide}, tmp_path / "wide.pt")
    for name in ("cycle.pt", "wide.pt"):
        with pytest.raises(ValueError, match=f"{name}: more than 10000 modules"):
            import_official(tmp_path / name)


def test_nothing_of_the_file_is_imported(tmp_path):
    path = save_official(tmp_path / "yolov7.pt", as_official(trained("yolov7")))
    import_official(path, SMALL["yolov7"])
    assert not [name for name in sys.modules if name.split(".")[0] in ("models", "utils")]
