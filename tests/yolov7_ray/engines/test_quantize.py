"""A model in int8: what is quantised, by which ranges, and how near it is."""

import numpy as np
import pytest
import torch
from serving import seeing_model

from yolov7.model.reparameterize import reparameterize
from yolov7_ray.engines.engine import ENGINES
from yolov7_ray.engines.folded import FoldedModel
from yolov7_ray.engines.quantize import last_convolutions, quantized

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> FoldedModel:
    return FoldedModel(reparameterize(seeing_model()), ["cat", "dog"], 64)


@pytest.fixture(scope="module")
def int8(model) -> bytes:
    rng = np.random.default_rng(0)
    return quantized(model.onnx("fp32"), (rng.random((1, 3, 64, 64), np.float32) for _ in range(8)))


def test_all_convolutions_but_the_last_are_in_int8(model, int8):
    graph = onnx.load_from_string(int8).graph
    makers = {output: node for node in graph.node for output in node.output}
    plain = [node.name for node in graph.node
             if node.op_type == "Conv" and makers.get(node.input[0], node).op_type != "DequantizeLinear"]
    assert len(plain) == 3 and plain == last_convolutions(graph)  # one for each level
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    per_channel = {name: tensor for tensor in graph.initializer for name in [tensor.name]}
    for node in convolutions:
        if node.name not in plain:
            weights = makers[node.input[1]]
            assert per_channel[weights.input[0]].data_type == onnx.TensorProto.INT8
            assert list(per_channel[weights.input[1]].dims) == [per_channel[weights.input[0]].dims[0]]  # scales
    operators = {node.op_type for node in graph.node} - {"QuantizeLinear", "DequantizeLinear"}
    assert operators <= {node.op_type for node in onnx.load_from_string(model.onnx("fp32")).graph.node}


def test_ranges_are_those_of_the_images(model):
    def scale(brightest: float) -> float:
        images = np.linspace(0, brightest, 3 * 64 * 64, dtype=np.float32).reshape(1, 3, 64, 64)
        graph = onnx.load_from_string(quantized(model.onnx("fp32"), [images])).graph
        [first] = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "images"]
        return float(onnx.numpy_helper.to_array(next(t for t in graph.initializer if t.name == first.input[1])))

    assert scale(1.0) == pytest.approx(1 / 255, rel=1e-5) and scale(0.5) == pytest.approx(0.5 / 255, rel=1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_it_sees_about_the_same(engine, model, int8):
    pytest.importorskip(engine)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    expected = ENGINES["torch"](model, CPU, "fp32").predict(images)
    found = ENGINES[engine](FoldedModel(model.model, files={"model.int8.onnx": lambda: int8}), CPU, "int8").predict(images)
    difference = (found - expected)[..., 4:].abs()
    assert 1e-5 < difference.mean() < 0.04 and found.shape == expected.shape
    assert torch.corrcoef(torch.stack([found[..., 4:].flatten(), expected[..., 4:].flatten()]))[0, 1] > 0.8
