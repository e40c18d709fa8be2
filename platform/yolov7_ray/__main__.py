"""One job file on the cluster that this process is in: ``python -m yolov7_ray job.json --run-name NAME``."""

import argparse
import os
import sys
import tempfile

from .errors import JobError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m yolov7_ray", description=__doc__)
    parser.add_argument("job", help="job file, YAML or JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="override a key of the job, e.g. --set data.image_size_px=320")
    name = parser.add_mutually_exclusive_group()
    name.add_argument("--run-name", metavar="NAME", help="name of the new run (default: a unique one)")
    name.add_argument("--resume", metavar="NAME", help="go on with this run")
    parser.add_argument("--no-admission", action="store_true", help="do not check that the cluster is large enough")
    parser.add_argument("--verbose", action="store_true", help="show Ray's own messages too")
    parser.add_argument("--json", action="store_true", help="end with a line of JSON: the outputs")
    arguments = parser.parse_args()
    try:
        from .jobs.execution import execute, json_line
        from .jobs.job_file import load_job, run_name
        from .jobs.paths import absolute

        job = absolute(load_job(arguments.job, arguments.overrides))
        os.chdir(tempfile.gettempdir())  # Ray may replace the one that it unpacked, and torch does not load without
        outputs = execute(job, arguments.resume or arguments.run_name or run_name(job), resume=bool(arguments.resume),
                          address="auto", admit=not arguments.no_admission, verbose=arguments.verbose)
        if arguments.json:
            print(json_line(outputs), flush=True)
    except JobError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
