"""The detector at the command line: what a model is made of, official weights in, other runtimes out."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from .architectures.family import ARCHITECTURES, architecture

Arguments = argparse.Namespace


def print_description(given: Arguments) -> None:
    from .model.describe import describe

    scaled = architecture(given.name).scaled(depth=given.depth, width=given.width)
    print(describe(scaled, given.classes, given.image_size))


def import_weights(given: Arguments) -> None:
    from .checkpoints.official import import_official
    from .checkpoints.weights import save_model

    chosen = architecture(given.architecture) if given.architecture else None
    model, classes = import_official(given.checkpoint, chosen)
    save_model(given.output, model, classes)
    form = "folded" if model.is_folded else "training form"
    print(f"{given.output}: {model.architecture.name}, {model.num_classes} classes, {form}")


def export_weights(given: Arguments) -> None:
    from .checkpoints.export import export_onnx
    from .checkpoints.weights import load_model

    model, classes = load_model(given.weights)
    size_px = given.image_size or model.architecture.default_image_size_px
    export_onnx(
        model, given.output, size_px, classes, nms=given.nms, dynamic_size=given.dynamic_size,
        confidence_threshold=given.confidence, iou_threshold=given.iou, max_detections=given.max_detections,
    )  # fmt: skip
    print(f"{given.output}: {model.architecture.name}, {model.num_classes} classes, {size_px} px")


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(prog="python -m yolov7", description=__doc__)
    commands = main_parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[Arguments], None], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run, command_parser=added)
        return added

    added = command("describe", print_description, "print parts, shapes, parameters and FLOPs")
    added.add_argument("name", help=", ".join(ARCHITECTURES))
    added.add_argument("--depth", type=float, help="depth factor; alone it implies the width (compound scaling)")
    added.add_argument("--width", type=float, help="width factor of every channel")
    added.add_argument("--image-size", type=int, help="pixels; the architecture's own size by default")
    added.add_argument("--classes", type=int, default=80, help="number of classes (80)")

    added = command("import", import_weights, "read an official .pt file, executing nothing, into a safetensors file")
    added.add_argument("checkpoint", help="official checkpoint or plain state dict")
    added.add_argument("--architecture", help="its name; found from the weights by default")
    added.add_argument("-o", "--output", required=True, help="safetensors file to write")

    added = command("export", export_weights, "write a folded ONNX file")
    added.add_argument("weights", help="safetensors file of import, of a run or of the registry")
    added.add_argument("-o", "--output", required=True, help="ONNX file to write")
    added.add_argument("--image-size", type=int, help="pixels; the architecture's own size by default")
    added.add_argument("--dynamic-size", action="store_true", help="leave height and width free")
    added.add_argument("--nms", action="store_true", help="with suppression: detections (D, 7) instead of predictions")
    added.add_argument("--confidence", type=float, default=0.25, help="least score with --nms (0.25)")
    added.add_argument("--iou", type=float, default=0.45, help="overlap that --nms lets stand (0.45)")
    added.add_argument("--max-detections", type=int, default=100, help="boxes per image with --nms (100)")
    return main_parser


def main(arguments: list[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    try:
        given.run(given)
    except (ValueError, ImportError, OSError) as error:
        given.command_parser.error(str(error))


if __name__ == "__main__":
    main()
