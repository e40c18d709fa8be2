"""The export job."""

import importlib.util
from typing import Any

from ...errors import JobError
from ...jobs.kind import JobKind, Line, Upcoming
from .spec import ExportSpec


class Export(JobKind[ExportSpec]):
    """Trained model -> files for other programs."""

    spec = ExportSpec
    outputs = {"output": "directory", "onnx": "model"}
    example = {"model": "runs/my-run", "output": "exported"}

    def run(self, spec: ExportSpec, run_name: str) -> dict[str, Any]:
        from .export import export

        return export(spec)

    def check_inputs(self, spec: ExportSpec, upcoming: Upcoming) -> None:
        missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
        if "onnx" in spec.formats and missing:
            raise JobError("formats: onnx", f"needs {' and '.join(missing)}, not installed",
                           "pip install 'yolov7-ray[export]', or choose torch or safetensors")

    def dry_run(self, spec: ExportSpec, upcoming: Upcoming) -> list[Line]:
        from ..dry_run import model_lines

        size = "any size" if spec.any_size else f"{spec.image_size_px or 'the trained'} px"
        return [*model_lines(spec.model, spec.registry, upcoming), ("export", f"{', '.join(spec.formats)} at {size}")]

    def next_command(self, spec: ExportSpec, outputs: dict[str, Any]) -> str:
        path = outputs.get("onnx")
        return f"python -c 'from yolov7_ray import Detector; print(Detector(\"{path}\")(\"photo.jpg\"))'" if path else ""


KIND = Export()
