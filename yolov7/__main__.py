"""The detector at the command line: what a model is made of, official weights in, other runtimes out."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from .architectures.family import ARCHITECTURES, architecture

Arguments = argparse.Namespace


def print_description(args: Arguments) -> None:
    from .model.describe import describe

    scaled = architecture(args.name).scaled(depth=args.depth, width=args.width)
    print(describe(scaled, args.classes, args.image_size))


def print_tables(args: Arguments) -> None:
    from .model.describe import comparison

    print(comparison(args.runs))


def import_weights(args: Arguments) -> None:
    from .checkpoints.official import import_official
    from .checkpoints.weights import save_model

    chosen = architecture(args.architecture) if args.architecture else None
    model, classes = import_official(args.checkpoint, chosen)
    save_model(args.output, model, classes,
               image_size_px=args.image_size or model.architecture.default_image_size_px)
    form = "folded" if model.is_folded else "training form"
    print(f"{args.output}: {model.architecture.name}, {model.num_classes} classes, {form}")


def export_weights(args: Arguments) -> None:
    from .checkpoints.export import export_onnx, save_program
    from .checkpoints.weights import load_model, trained_image_size_px

    model, classes = load_model(args.weights)
    size_px = args.image_size or trained_image_size_px(args.weights) or model.architecture.default_image_size_px
    options = {"nms": args.nms, "dynamic_size": args.dynamic_size, "confidence_threshold": args.confidence,
               "iou_threshold": args.iou, "max_detections": args.max_detections}
    if args.output.endswith(".pt2"):
        save_program(model, args.output, size_px, **options)
    else:
        export_onnx(model, args.output, size_px, classes, **options)
    print(f"{args.output}: {model.architecture.name}, {model.num_classes} classes, {size_px} px")


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(prog="python -m yolov7", description=__doc__)
    commands = main_parser.add_subparsers(dest="command", required=True)

    def add_command(name: str, run: Callable[[Arguments], None], help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(run=run, command_parser=sub)
        return sub

    sub = add_command("describe", print_description, "print parts, shapes, parameters and FLOPs")
    sub.add_argument("name", help=", ".join(ARCHITECTURES))
    sub.add_argument("--depth", type=float, help="depth factor; alone it implies the width (compound scaling)")
    sub.add_argument("--width", type=float, help="width factor of every channel")
    sub.add_argument("--image-size", type=int, help="pixels; the architecture's own size by default")
    sub.add_argument("--classes", type=int, default=80, help="number of classes (80)")

    sub = add_command("tables", print_tables, "print the paper's comparison of detectors beside our parameters and FLOPs")
    sub.add_argument("runs", nargs="*", metavar="RUN", help="directory of a training, whose measured figures are added")

    sub = add_command("import", import_weights, "read an official .pt file, executing nothing, into a safetensors file")
    sub.add_argument("checkpoint", help="official checkpoint or plain state dict")
    sub.add_argument("--architecture", help="its name; found from the weights by default")
    sub.add_argument("-o", "--output", required=True, help="safetensors file to write")
    sub.add_argument("--image-size", type=int, help="pixels it was trained at; the architecture's own by default")

    sub = add_command("export", export_weights, "write a folded ONNX file or torch.export program")
    sub.add_argument("weights", help="safetensors file of import, of a run or of the registry")
    sub.add_argument("-o", "--output", required=True, help="ONNX file to write, or with the suffix .pt2 a program")
    sub.add_argument("--image-size", type=int, help="pixels; the size it was trained at by default")
    sub.add_argument("--dynamic-size", action="store_true", help="leave height and width free")
    sub.add_argument("--nms", action="store_true", help="with suppression: detections (D, 7) instead of predictions")
    sub.add_argument("--confidence", type=float, default=0.25, help="least score with --nms (0.25)")
    sub.add_argument("--iou", type=float, default=0.45, help="overlap that --nms lets stand (0.45)")
    sub.add_argument("--max-detections", type=int, default=100, help="boxes per image with --nms (100)")
    return main_parser


def main(arguments: list[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, ImportError, OSError) as error:
        args.command_parser.error(str(error))


if __name__ == "__main__":
    main()
