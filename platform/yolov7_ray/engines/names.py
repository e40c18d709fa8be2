"""Names of engines and precisions, as in job files."""

from typing import Literal

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
"""What runs a model; auto: the fastest of those installed, by measurement."""
Precision = Literal["fp32", "bf16", "int8"]
"""int8: of versions that were published so."""
