"""Writes a model for other programs, and runs what it has written beside the model.

B images · N predictions · C classes
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolov7.checkpoints import weights
from yolov7.checkpoints.export import DetectorWithNms, export_onnx, save_program
from yolov7.model.detector import YOLO
from yolov7.model.reparameterize import reparameterize

from ... import storage
from ...engines.choice import largest_difference
from ...errors import JobError
from ..model_source import LoadedModel, load_model
from .spec import ExportSpec, Format

FILES: dict[Format, str] = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "model.safetensors"}
RECORD = "export.json"


def export(spec: ExportSpec) -> dict[str, Any]:
    """Write the files; their URIs by format. JobError, and no file, if the model is missing or one differs too much."""
    loaded = load_model(spec.model, spec.registry)
    size_px = spec.image_size_px or loaded.image_size_px
    stride = max(loaded.model.strides)
    if size_px % stride or size_px < 2 * stride:
        raise JobError("image_size_px", f"{size_px} does not fit", f"give a multiple of {stride}, at least {2 * stride}")
    model = loaded.model if loaded.model.is_folded else reparameterize(loaded.model)
    differences: dict[str, float | None] = {}
    with storage.staging(spec.output) as directory:
        for name in spec.formats:
            path = Path(directory, FILES[name])
            _write(name, path, model, loaded, size_px, spec)
            found = differences[name] = _difference(name, path, model, size_px, spec)
            if found is not None and not found <= spec.tolerance:
                raise JobError(spec.model, f"as {name} differs by {found:.1e} from the model, more than {spec.tolerance:g}; "
                               "nothing was written", "raise tolerance if you can accept that")
            told = "not run here: onnxruntime is not installed" if found is None else f"differs by {found:.1e} from the model"
            print(f"export: {path.name}, {path.stat().st_size / 1e6:.1f} MB, {told}", flush=True)
        files = {FILES[name]: {"sha256": storage.digest(Path(directory, FILES[name]))} for name in spec.formats}
        storage.publish(directory, spec.output)
    storage.write_json(storage.join(spec.output, RECORD), {
        "model": loaded.source, "classes": list(loaded.classes), "image_size_px": size_px, "files": files,
        "differences": differences, "spec": spec.model_dump(mode="json")})
    return {"output": spec.output} | {name: storage.join(spec.output, FILES[name]) for name in spec.formats}


def _settings(spec: ExportSpec) -> dict[str, Any]:
    return {"nms": True, "confidence_threshold": spec.confidence_threshold, "iou_threshold": spec.iou_threshold,
            "max_detections": spec.max_detections} if spec.nms else {}


def _write(name: Format, path: Path, model: YOLO, loaded: LoadedModel, size_px: int, spec: ExportSpec) -> None:
    if name == "safetensors":
        weights.save_model(path, model, loaded.classes, image_size_px=size_px)
    elif name == "torch":
        save_program(model, path, size_px, dynamic_size=spec.any_size, **_settings(spec))
    else:
        export_onnx(model, path, size_px, loaded.classes, dynamic_size=spec.any_size, **_settings(spec))


@torch.inference_mode()
def _difference(name: Format, path: Path, model: YOLO, size_px: int, spec: ExportSpec) -> float | None:
    """Largest difference of the file's outputs from the model's on two images; None: what runs it is not installed.

    With suppression in the graph, of the scores of the detections.
    """
    images = torch.rand(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    if name == "safetensors":
        again, _ = weights.load_model(path)
        return largest_difference(again.eval()(images), model(images), size_px)
    found = _run(name, path, images)
    if found is None:
        return None
    if not spec.nms:
        return largest_difference(found, model(images), size_px)
    settings = {key: value for key, value in _settings(spec).items() if key != "nms"}
    expected = DetectorWithNms(model, **settings)(images)
    scores = torch.full((2, max(len(found), len(expected), 1)), spec.confidence_threshold)  # of what one of them lacks
    for row, detections in zip(scores, (found, expected)):
        row[:len(detections)] = detections[:, 5].sort(descending=True).values
    return (scores[0] - scores[1]).abs().max().item()


def _run(name: Format, path: Path, images: Tensor) -> Tensor | None:
    """The file's output for (B, 3, H, W) images in [0, 1]."""
    if name == "torch":
        return torch.export.load(path).module()(images)
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
