"""``python -m yolov7_ray.command_line``: the command line, without an installed program."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
