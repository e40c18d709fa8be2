"""What a person calls: `python submit.py` in a checkout, `yolov7-ray` where the package is installed."""

import os

VERSION = "0.2.0"
PROGRAM = "YOLOV7_RAY_PROGRAM"
"""Environment variable with its name, so that a cluster's jobs recommend it too."""
CHECKOUT, INSTALLED = "python submit.py", "yolov7-ray"


def command(words: str) -> str:
    """A command to recommend: the program and its words."""
    return f"{os.environ.get(PROGRAM, CHECKOUT)} {words}"
