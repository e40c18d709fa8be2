"""The engine that is chosen: by what publishing measured where that holds here, else by measurement."""

import pytest
import torch
from serving import blind_model

from yolov7_ray.engines import choice
from yolov7_ray.engines.device import device_kind
from yolov7_ray.engines.engine import TorchEngine
from yolov7_ray.engines.folded import Compiled, FoldedModel
from yolov7_ray.errors import JobError

CPU = torch.device("cpu")


class Fast(TorchEngine):
    name = "fast"

    def __init__(self, folded, device, precision):
        super().__init__(folded, device, "fp32")
        self.precision = precision


@pytest.fixture(autouse=True)
def two_engines(monkeypatch):
    monkeypatch.setattr(choice, "ENGINES", {"torch": TorchEngine, "fast": Fast})
    monkeypatch.setattr(choice, "library", lambda engine: f"{engine} 1")


def published(engine: str, precision: str, milliseconds: float, **differing: str) -> Compiled:
    return Compiled(**{"engine": engine, "precision": precision, "library": f"{engine} 1", "file": None,
                       "device": device_kind(CPU), "milliseconds": milliseconds, "ap": 0.5, "largest_difference": 0.0} | differing)


def chosen(compiled: list[Compiled], precision: str = "auto", engine: str = "auto") -> tuple[str, str, list[str]]:
    found, measured = choice.chosen(FoldedModel(blind_model(), compiled=compiled), CPU, 64, engine, precision)
    return found.name, found.precision, list(map(str, measured))


def never(work, trials=5):
    raise AssertionError("nothing is to be measured")


def test_what_publishing_measured_on_such_a_device_is_taken(monkeypatch):
    monkeypatch.setattr(choice, "timed_ms", never)
    known = [published("torch", "fp32", 20), published("fast", "bf16", 8), published("fast", "int8", 5)]
    told = ["torch fp32 20.0 ms", "fast bf16 8.0 ms", "fast int8 5.0 ms"]
    assert chosen(known) == ("fast", "int8", told)
    assert chosen(known, precision="bf16") == ("fast", "bf16", told[1:2])
    assert chosen(known, precision="fp32") == ("torch", "fp32", told[:1])
    assert chosen(known, engine="fast") == ("fast", "fp32", [])  # what was asked for


def test_what_does_not_hold_here_is_measured_again(monkeypatch):
    monkeypatch.setattr(choice, "timed_ms", lambda work: [{"torch": 9.0, "fast": 7.0}[work.func.__self__.name]])
    told = ["torch fp32 9.0 ms", "fast fp32 7.0 ms"]
    for differing in ({"device": "another"}, {"library": "fast 0"}):
        assert chosen([published("fast", "bf16", 1, **differing)]) == ("fast", "fp32", [*told, "fast bf16 7.0 ms"])
    assert chosen([]) == ("fast", "fp32", told)


def test_published_precisions_need_no_parity_on_noise(monkeypatch):
    """Their AP is known; without it a difference is a fault."""
    monkeypatch.setattr(choice, "timed_ms", lambda work: [1.0])
    monkeypatch.setattr(Fast, "predict", lambda self, images: TorchEngine.predict(self, images) + 0.5)
    assert chosen([published("fast", "int8", 1, device="another")])[2] == [
        "torch fp32 1.0 ms", "fast fp32 differs by 0.5 from PyTorch in fp32", "fast int8 1.0 ms"]


def test_files_are_those_that_were_published():
    model = FoldedModel(blind_model(), files={"model.onnx": lambda: b"fp32", "model.int8.onnx": lambda: b"int8"})
    assert [model.onnx(precision) for precision in ("fp32", "bf16", "int8")] == [b"fp32", b"fp32", b"int8"]
    assert model.exported_because == ""


def test_a_file_that_is_missing_or_damaged_is_exported_again():
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")

    def damaged():
        raise JobError("s3://r/m/1/model.onnx", "is not what was published: its digest differs")

    model = FoldedModel(blind_model(), ["cat", "dog"], 64, {"model.onnx": damaged, "model.int8.onnx": damaged})
    graph = onnx.load_from_string(model.onnx("bf16"))
    assert [axis.dim_value for axis in graph.graph.input[0].type.tensor_type.shape.dim][1] == 3
    assert model.exported_because == "s3://r/m/1/model.onnx: is not what was published: its digest differs"
    with pytest.raises(JobError, match="precision: int8: s3://r/m/1/model.onnx: is not what was published"):
        model.onnx("int8")
    with pytest.raises(JobError, match="int8: there is no model.int8.onnx; publish the model with this engine and precis"):
        FoldedModel(blind_model()).onnx("int8")


def test_the_kind_of_a_cpu_tells_its_instructions():
    with open("/proc/cpuinfo") as lines:
        flags = next(line for line in lines if line.startswith(("flags", "Features"))).split()
    model, *features = device_kind(CPU).split(", ")
    assert model and set(features) <= set(flags) and ("avx512_bf16" in features) == ("avx512_bf16" in flags)
