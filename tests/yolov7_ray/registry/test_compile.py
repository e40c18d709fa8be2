"""Versions compiled for engines: what they carry, what is refused, and that endpoints and predict jobs use it."""

import json

import onnx
import pytest
import torch
from conftest import coco_source, ingest_here, make_coco
from serving import CLASSES, SIZE_PX, picture, register_blind_model, seeing_model

from yolov7.checkpoints.weights import save_model
from yolov7_ray import storage
from yolov7_ray.detect.detector import Detector
from yolov7_ray.engines.device import device_kind
from yolov7_ray.errors import Corrupt, JobError
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.kind import Upcoming
from yolov7_ray.registry import compile as compiling
from yolov7_ray.registry.model_source import load_model, locate
from yolov7_ray.registry.publish import publish
from yolov7_ray.registry.registry import Registry
from yolov7_ray.registry.spec import PublishSpec
from yolov7_ray.registry.version import ModelVersion

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


def job(**keys) -> dict:
    return {"kind": "publish", "model": "runs/r", "registry": "registry", "publish_as": "shapes", "dataset": "data"} | keys


def test_engines_by_name_or_with_a_precision():
    spec = validate(job(engines=["openvino", {"engine": "openvino", "precision": "int8", "ap_tolerance": 0.01}]))
    assert [(each.engine, each.precision, each.ap_tolerance) for each in spec.engines] == [
        ("openvino", "fp32", None), ("openvino", "int8", 0.01)]
    assert spec.ap_tolerance == 0.002 and validate(job()).engines == ()


def test_the_dry_run_names_them(published):
    from yolov7_ray.registry.dry_run import publish_lines

    lines = dict(publish_lines(published, Upcoming()))
    assert lines["engines"] == "onnxruntime fp32, openvino bf16, onnxruntime int8; measured on val"
    assert "engines" not in dict(publish_lines(published.model_copy(update={"engines": ()}), Upcoming()))


@pytest.mark.parametrize("keys, message", [
    ({"engines": ["torch"]}, "engines.0: 'torch' does not fit; it must be 'onnxruntime' or 'openvino'"),
    ({"engines": [{"engine": "onnxruntime", "precision": "bf16"}]},
     "engines.0.precision: onnxruntime computes in fp32, int8, not in bf16"),
    ({"engines": ["openvino"], "dataset": None}, "engines: their AP needs images to be measured on; give dataset"),
])
def test_engines_that_cannot_be(keys, message):
    with pytest.raises(JobError) as error:
        validate(job(**keys))
    assert message in str(error.value)


def test_an_engine_that_is_not_installed_is_named_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(JobError, match=r"engines: openvino needs openvino, not installed where the job runs; pip install"):
        publish(PublishSpec.model_validate(job(engines=["openvino"])), "test")


# --- a version that was compiled -------------------------------------------------------------------------

WANTED = ["onnxruntime", {"engine": "openvino", "precision": "bf16", "ap_tolerance": 1},
          {"engine": "onnxruntime", "precision": "int8", "ap_tolerance": 1}]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A spec that was published."""
    root = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("YOLOV7_CACHE_DIR", str(root / "cache"))
        make_coco(root / "coco", num_images=4)
        ingest_here(coco_source(root / "coco"), str(root / "dataset"))
        checkpoint = root / "run" / "checkpoint-epoch-0001"
        checkpoint.mkdir(parents=True)
        save_model(checkpoint / "ema.safetensors", seeing_model(), CLASSES)
        (checkpoint / "spec.json").write_text(json.dumps({"data": {"image_size_px": SIZE_PX}}))
        (root / "run" / "results.json").write_text(json.dumps({"best_checkpoint": checkpoint.name}))
        spec = PublishSpec.model_validate(job(model=str(root / "run"), registry=str(root / "registry"),
                                              dataset=str(root / "dataset"), engines=WANTED))
        publish(spec, "test")
        yield spec


def test_the_version_carries_files_and_measurements(published):
    version = Registry(published.registry).resolve("shapes@latest")
    assert set(version.files) == {"model.safetensors", "model.onnx", "model.int8.onnx", "validation.json"}
    found = [(each["engine"], each["precision"], each["file"]) for each in version.engines]
    assert found == [("torch", "fp32", None), ("onnxruntime", "fp32", "model.onnx"), ("openvino", "bf16", "model.onnx"),
                     ("onnxruntime", "int8", "model.int8.onnx")]
    kind = device_kind(torch.device("cpu"))
    assert all(each["milliseconds"] > 0 and each["device"] == kind for each in version.engines)
    assert [each["library"].split()[0] for each in version.engines] == ["torch", "onnxruntime", "openvino", "onnxruntime"]
    torch_fp32, fp32, bf16, int8 = version.engines
    assert torch_fp32["ap"] == version.metrics["overall"]["ap"] == pytest.approx(fp32["ap"], abs=1e-3)
    assert fp32["largest_difference"] < 1e-3 < bf16["largest_difference"] < int8["largest_difference"]
    program = onnx.load_from_string(storage.read_bytes(storage.join(published.registry, "shapes/1/model.onnx")))
    metadata = {entry.key: json.loads(entry.value) for entry in program.metadata_props}
    assert (metadata["classes"], metadata["image_size_px"]) == (CLASSES, SIZE_PX)


@pytest.mark.parametrize("engine, precision", [("onnxruntime", "int8"), ("openvino", "bf16"), ("auto", "auto")])
def test_its_files_are_used(published, engine, precision, monkeypatch):
    from yolov7_ray.engines import choice, folded

    def never(*arguments, **keys):
        raise AssertionError("nothing is to be exported or measured")

    monkeypatch.setattr(folded, "export_onnx", never)
    monkeypatch.setattr(choice, "timed_ms", never)
    loaded = load_model("shapes", published.registry)
    detector = Detector(loaded, engine=engine, precision=precision, confidence=0.0, max_detections=20)
    expected = Detector(loaded, confidence=0.0, max_detections=20)(picture(64, 64))
    assert abs(detector(picture(64, 64)).scores - expected.scores).max() < 0.2
    fastest = min(loaded.compiled, key=lambda found: found.milliseconds)
    assert (detector.engine.name, detector.engine.precision) == (
        (fastest.engine, fastest.precision) if engine == "auto" else (engine, precision))
    assert ("onnxruntime int8" in detector.chosen_by) == (engine == "auto")


def test_an_engine_that_loses_too_much_is_refused(published, monkeypatch):
    class Half(compiling.CocoEvaluator):
        def compute(self):
            return type("Metrics", (), {"ap": 0.4979})

    monkeypatch.setattr(compiling, "CocoEvaluator", Half)
    compiler = compiling.Compiler(published, load_model("shapes", published.registry).model,
                                  compiling.ArrowDataset(published.dataset, "val"), SIZE_PX, 0.5)
    files = {"model.onnx": lambda: b""}
    monkeypatch.setattr(compiler.__class__, "_engine", lambda *arguments: compiling.ENGINES["torch"](
        compiling.FoldedModel(compiler.model), compiling.CPU, "fp32"))
    wanted = compiling.CompiledFor(engine="openvino", precision="bf16")
    with pytest.raises(compiling.BelowGate, match="openvino bf16 loses 0.0021 AP, more than ap_tolerance 0.002; nothing was "
                                                  "registered; leave this engine and precision out"):
        compiler._checked(wanted, files)
    assert compiler._checked(wanted.model_copy(update={"ap_tolerance": 0.0022}), files)[3] == 0.4979


def test_nothing_moves_where_one_is_refused(published, monkeypatch):
    def refuse(self, wanted, files):
        raise compiling.BelowGate(published.model, "loses")

    monkeypatch.setattr(compiling.Compiler, "_checked", refuse)
    monkeypatch.setattr(compiling.Compiler, "_files", lambda self, directory: {})
    with pytest.raises(compiling.BelowGate):
        publish(published, "test")
    assert Registry(published.registry).versions("shapes") == ["1"]
    assert Registry(published.registry).aliases("shapes") == {"latest": "1"}


# --- records ---------------------------------------------------------------------------------------------


def test_files_are_read_from_any_registry_and_verified(place):
    registry = Registry(place)
    version = registry.register("m", {"model.safetensors": b"weights", "model.onnx": b"graph"}, {
        "architecture": {}, "num_classes": 2, "classes": CLASSES, "image_size_px": SIZE_PX, "metrics": {},
        "training_metrics": {}, "dataset_fingerprint": None, "spec": None, "parity": {}, "source": "tests"})
    [(name, artifact)] = locate("m", place).artifacts.items()
    assert (name, artifact.read()) == ("model.onnx", b"graph")
    storage.write_bytes(registry.file_uri(version, name), b"other")
    with pytest.raises(Corrupt, match="model.onnx: is not what was published: its digest differs; publish the model again"):
        artifact.read()


def test_records_without_engines_are_read(tmp_path):
    version = register_blind_model(str(tmp_path / "registry"), tmp_path)
    record = json.loads(version.to_json())
    del record["engines"]
    assert ModelVersion.from_json(json.dumps(record).encode(), "old").engines == []
    loaded = load_model("shapes", str(tmp_path / "registry"))
    assert (loaded.artifacts, loaded.compiled) == ({}, ())
