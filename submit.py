"""The door of a checkout: a job file in, a trained, tuned, published or served detector out. `--help` lists commands."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "platform")]  # where yolov7_ray is, if it is not installed

from yolov7_ray.command_line import main, parse  # noqa: F401  (parse: for those who read command lines)

if __name__ == "__main__":
    sys.exit(main())
