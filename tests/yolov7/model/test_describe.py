import pytest
from golden_models import FACTS

from yolov7 import ARCHITECTURES, build_model
from yolov7.model.reparameterize import reparameterize
from yolov7.__main__ import main
from yolov7.architectures.family import architecture
from yolov7.model.describe import count_flops, count_parameters, part_costs


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_flops(name):
    facts = FACTS[name]
    assert count_flops(name, facts["image_size_px"]) / 1e9 == pytest.approx(facts["gflops_training"], rel=1e-3)
    folded = count_flops(name, facts["image_size_px"], folded=True) / 1e9
    assert folded == pytest.approx(facts["gflops_folded"], rel=1e-3)


def test_a_model_is_counted_as_it_is():
    scaled = architecture("yolov7-w6").scaled(width=0.25)
    model = build_model(scaled, 3)
    assert count_flops(model, 128) == count_flops(scaled, 128, 3)
    assert count_flops(reparameterize(model), 128) == count_flops(scaled, 128, 3, folded=True)
    assert count_flops(reparameterize(model), 128) < count_flops(model, 128)


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7", "yolov7-e6e"])
def test_the_parts_add_up(name):
    parts, size_px = part_costs(name, 128), 128
    assert sum(part.num_flops for part in parts) == count_flops(name, size_px)
    assert sum(part.num_parameters for part in parts) == FACTS[name]["parameters_training"]
    assert all(part.shape[1] == size_px // part.stride for part in parts)
    assert parts[0].name == "backbone.stem"


def test_command_line(capsys):
    main(["describe", "yolov7-tiny", "--depth", "0.5", "--width", "0.5", "--classes", "3"])
    printed = capsys.readouterr().out
    model = build_model(architecture("yolov7-tiny").scaled(depth=0.5, width=0.5), 3)
    assert printed.startswith("yolov7-tiny-d0.5-w0.5: 3 classes, 640 px, strides 8, 16, 32")
    assert f"{count_parameters(model):,}" in printed and "head.lead_predictors.2" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["yolov9"], "'yolov9' is unknown; choose yolov7-tiny"),
        (["yolov7", "--image-size", "100"], "multiples of 32"),
        (["yolov7", "--depth", "-1"], "depth=-1.0 cannot scale"),
    ],
)
def test_command_line_errors(capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        main(["describe", *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
