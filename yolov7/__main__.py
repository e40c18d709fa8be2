"""`python -m yolov7 describe NAME`: what a model is made of, what it costs."""

from __future__ import annotations

import argparse

from .architectures import ARCHITECTURES, architecture
from .describe import describe


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m yolov7", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("describe", help="print parts, shapes, parameters and FLOPs")
    command.add_argument("name", help=", ".join(ARCHITECTURES))
    command.add_argument("--depth", type=float, help="depth factor; alone it implies the width (compound scaling)")
    command.add_argument("--width", type=float, help="width factor of every channel")
    command.add_argument("--image-size", type=int, help="pixels; the architecture's own size by default")
    command.add_argument("--classes", type=int, default=80, help="number of classes (80)")
    given = parser.parse_args(arguments)
    try:
        scaled = architecture(given.name).scaled(depth=given.depth, width=given.width)
        print(describe(scaled, given.classes, given.image_size))
    except ValueError as error:
        command.error(str(error))


if __name__ == "__main__":
    main()
