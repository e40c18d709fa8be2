"""The command line: `python submit.py` of a checkout, and `yolov7-ray` where the package is installed."""

import os
import sys

from .. import program
from ..errors import JobError
from .commands import COMMANDS, EXIT_INTERRUPTED, manage
from .parser import parse


def main(words: list[str] | None = None) -> int:
    """Carry out a command; its exit status."""
    arguments = parse(sys.argv[1:] if words is None else words)
    try:
        return COMMANDS.get(arguments.command, manage)(arguments)
    except JobError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def installed() -> int:
    """The entry point of the installed program."""
    os.environ[program.PROGRAM] = program.INSTALLED
    return main()
