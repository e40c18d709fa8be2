"""`python -m yolov7 import`, from file to file, and mistakes at the command line; export is in test_export.py."""

import json

import pytest
import torch
from golden_models import filled_model, official_state_dict
from official_files import save_official

from yolov7.__main__ import main
from yolov7.architectures.family import architecture
from yolov7.architectures.published import neighbours
from yolov7.checkpoints.weights import load_model, save_model, trained_image_size_px
from yolov7.model.detector import build_model


def test_import_writes_a_model_file(tmp_path, capsys):
    checkpoint, output = tmp_path / "tiny.pt", tmp_path / "tiny.safetensors"
    names = [f"name {i}" for i in range(80)]
    save_official(checkpoint, official_state_dict("yolov7-tiny"), names=names)
    main(["import", str(checkpoint), "--architecture", "yolov7-tiny", "-o", str(output)])
    assert capsys.readouterr().out == f"{output}: yolov7-tiny, 80 classes, training form\n"
    model, classes = load_model(output)
    expected = filled_model("yolov7-tiny").state_dict()
    assert classes == names and all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())
    assert trained_image_size_px(output) == 640
    main(["import", str(checkpoint), "--architecture", "yolov7-tiny", "-o", str(output), "--image-size", "416"])
    assert trained_image_size_px(output) == 416
    with pytest.raises(SystemExit):
        main(["import", str(checkpoint), "--architecture", "yolov7", "-o", str(tmp_path / "none.safetensors")])
    assert "do not fit yolov7 with 80 classes" in capsys.readouterr().err
    assert not (tmp_path / "none.safetensors").exists()


def test_a_program_takes_images_of_the_size_that_the_model_was_trained_at(tmp_path):
    torch.manual_seed(0)
    model = build_model(architecture("yolov7-tiny").scaled(depth=0.33, width=0.125), 2)
    save_model(tmp_path / "model.safetensors", model, ["cat", "dog"], image_size_px=96)
    main(["export", str(tmp_path / "model.safetensors"), "-o", str(tmp_path / "model.pt2")])
    program, images = torch.export.load(tmp_path / "model.pt2").module(), torch.rand(3, 3, 96, 96)
    torch.testing.assert_close(program(images), model.eval()(images), rtol=1e-3, atol=1e-3)
    with pytest.raises(AssertionError, match="96"):
        program(torch.rand(3, 3, 64, 64))


@pytest.mark.parametrize(("arguments", "message"), [
    (["import", "missing.pt", "-o", "x"], "No such file"),
    (["import", "README.md", "-o", "x"], "README.md: no file of torch.save"),
    (["import", "x.pt", "--architecture", "yolov9", "-o", "x"], "'yolov9' is unknown"),
    (["export", "README.md", "-o", "x.onnx"], "README.md: not a readable safetensors file"),
    (["import", "x.pt"], "-o/--output"),
])  # fmt: skip
def test_mistakes(capsys, monkeypatch, tmp_path, arguments, message):
    (tmp_path / "README.md").write_text("# no weights\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_tables_of_what_is_no_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["tables", str(tmp_path)])
    assert f"{tmp_path}: holds no results of a training" in capsys.readouterr().err


def test_a_model_stands_among_the_published_ones_of_its_size():
    assert [row.model for row in neighbours(37.0, 640, 2)] == ["YOLOv5-M6 (r6.1)", "YOLOv7", "YOLOR-P6", "YOLOR-u5 (r6.1)"]
    assert [(row.model, row.image_size_px) for row in neighbours(1.0, 320, 4)][-1] == ("YOLOv7-tiny", 320)


def test_tables_puts_our_counts_and_runs_beside_the_published_figures(tmp_path, capsys):
    run = tmp_path / "mine"
    run.mkdir()
    (run / "results.json").write_text(json.dumps({
        "architecture": "yolov7-tiny", "dataset": "datasets/bccd", "parameters": 6_014_988, "gflops": 13.1,
        "best": {"ap": 0.4312, "ap50": 0.8341}, "spec": {"data": {"image_size_px": 256}},
        "epochs": [{"images_per_s": 20}, {"images_per_s": 30}, {"images_per_s": 28}]}))
    main(["tables", str(run)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows.pop() == ["mine", "256", "43.1", "83.4", "-", "28", "6.0", "13.1", "yolov7-tiny,", "datasets/bccd"]
    by_model = {tuple(row[:2]): row for row in rows if len(row) > 6}
    assert by_model["YOLOv7", "640"][2:6] == ["51.2", "-", "-", "161"]  # Table 2, which comes last
    assert by_model["YOLOv4-tiny", "416"][2:] == ["24.9", "42.1", "25.7", "-", "6.1", "6.9", "-"]
    compared = [row for row in rows if len(row) == 11 and row[8].startswith(("yolov7", "yolor", "yolov4"))]
    assert len(compared) == 12 + 13
    for _, _, _, _, _, _, published_m, published_g, own, parameters_m, gflops in compared:
        if own != "yolov7-d6":  # published with its auxiliary head
            assert float(gflops) == pytest.approx(float(published_g), rel=0.005, abs=0.11)
            assert float(parameters_m) == pytest.approx(float(published_m), abs=0.051)
