"""A model in int8: its convolutions, by static quantisation with the ranges that it shows on images.

B images · H W side of the images
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import JobError


def quantized(onnx: bytes, images: Iterable[np.ndarray]) -> bytes:
    """The ONNX file with convolutions in int8 between QuantizeLinear and DequantizeLinear, which ONNX Runtime and
    OpenVINO fuse. All else, the decoding of boxes and scores included, stays in fp32, and so do the last convolutions: they are
    small, and boxes and scores are read off them.

    images: (B, 3, H, W) float32 in [0, 1], on which ranges are calibrated. Weights are int8 with a scale for each
    channel, activations uint8. JobError without the packages.
    """
    try:
        import onnx as format
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise JobError("precision", f"int8 needs the package {error.name}, which is not installed",
                       "pip install 'yolov7-ray[onnxruntime]'") from error

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, np.ndarray]] = ({"images": batch} for batch in images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory(prefix="yolov7-int8-") as directory:
        given, prepared, made = (Path(directory, name) for name in ("given.onnx", "prepared.onnx", "made.onnx"))
        given.write_bytes(onnx)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, made, Images(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"],
                        nodes_to_exclude=last_convolutions(format.load(prepared).graph))
        return made.read_bytes()


def last_convolutions(graph) -> list[str]:
    """Names of the convolutions of an ONNX graph that no other one follows."""
    makers = {output: node for node in graph.node for output in node.output}
    followed, waiting = set(), [node for node in graph.node if node.op_type == "Conv"]
    last = {node.name for node in waiting}
    while waiting:
        for name in waiting.pop().input:
            node = makers.get(name)
            if node is not None and node.name not in followed:
                followed.add(node.name)
                waiting.append(node)
    return sorted(last - followed)
