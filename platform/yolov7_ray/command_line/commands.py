"""What each command does; its exit status."""

import argparse
import os
import sys
from pathlib import Path

from ..errors import JobError
from ..program import command

LOCAL_DASHBOARD = "http://127.0.0.1:8265"
EXIT_INTERRUPTED = 130


def run(arguments: argparse.Namespace) -> int:
    """Run a job file."""
    from ..jobs import job_file

    return carry_out(job_file.load_job(arguments.job, arguments.overrides), arguments.job, arguments)


def doctor(arguments: argparse.Namespace) -> int:
    """Examine a dataset."""
    from ..jobs import job_file

    keys = ("dataset", "architecture", "image_size_px", "output", "json_file")
    given = {key: value for key in keys if (value := getattr(arguments, key)) is not None}
    return carry_out(job_file.validate({"kind": "doctor", **given}, "doctor"), f"doctor {arguments.dataset}", arguments)


def export(arguments: argparse.Namespace) -> int:
    """Write a model for other programs."""
    from ..jobs import job_file

    keys = ("model", "registry", "output", "formats", "image_size_px", "any_size", "nms")
    given = {key: value for key in keys if (value := getattr(arguments, key)) not in (None, False)}
    return carry_out(job_file.validate({"kind": "export", **given}, "export"), f"export {arguments.model}", arguments)


def compare(arguments: argparse.Namespace) -> int:
    """Put runs side by side."""
    from ..evaluate.compare.report import compare as lines

    print("\n".join(lines(arguments.runs, arguments.output)))
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Say what changed in a dataset."""
    from ..data.history.diff import diff as changes

    print("\n".join(changes(arguments.dataset, arguments.other)))
    return 0


def prune(arguments: argparse.Namespace) -> int:
    """Remove earlier contents."""
    from ..data.history.prune import prune as remove

    print("\n".join(remove(arguments.dataset, arguments.keep, arguments.yes)))
    return 0


def carry_out(job, where: str, arguments: argparse.Namespace) -> int:
    """Run a job, which came from `where`, here or on a cluster."""
    from ..jobs import job_file, paths

    name = arguments.resume or arguments.name or job_file.run_name(job)
    if arguments.address:
        paths.require_shared(job, where)
    else:
        job = paths.absolute(job)
    if arguments.dry_run:
        from ..jobs.dry_run import plan

        print(plan(job))
        return 0
    if arguments.address:
        return run_remotely(arguments, job, name)
    from ..jobs.execution import after_interrupt, execute, json_line

    try:
        outputs = execute(job, name, resume=bool(arguments.resume), admit=not arguments.no_admission,
                          verbose=arguments.verbose, where=where)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {after_interrupt(job, name, where)}", flush=True)
        return EXIT_INTERRUPTED
    if getattr(arguments, "json", False):
        print(json_line(outputs), flush=True)
    return 0


def run_remotely(arguments: argparse.Namespace, job, name: str) -> int:
    """Submit to the cluster and follow; the exit status is the job's."""
    from ..cluster.follower import follow
    from ..cluster.jobs_api import Cluster
    from ..jobs.kinds import kind_of

    job = kind_of(job).sent(job)
    cluster = Cluster(arguments.address, arguments.insecure)
    job_id = cluster.submit(job, name, resume=bool(arguments.resume), admit=not arguments.no_admission,
                            verbose=arguments.verbose, forward_credentials=arguments.forward_aws_credentials,
                            json_outputs=getattr(arguments, "json", False))
    print(f"submitted {job_id} to {cluster.address}", flush=True)
    while not arguments.detach:
        try:
            return follow(cluster, job_id, reconnect_s=60 * arguments.reconnect)
        except KeyboardInterrupt:
            answer = ask("\ns: stop the job; d: leave it running (default); c: go on following > ")
            if answer == "s":
                print(f"{job_id}: {cluster.stop(job_id)}")
                return EXIT_INTERRUPTED
            if answer != "c":
                break
    print(f"{job_id} goes on; {command(f'logs {job_id} --follow --address {cluster.address}')}")
    return 0 if arguments.detach else EXIT_INTERRUPTED


def ask(question: str) -> str:
    """The user's answer; none (so the job is left running) where nobody is at a terminal."""
    if not sys.stdin.isatty():
        return ""
    try:
        return input(question).strip().lower()[:1]
    except (EOFError, KeyboardInterrupt):
        return ""


def manage(arguments: argparse.Namespace) -> int:
    """list, logs, stop."""
    from ..cluster.follower import follow
    from ..cluster.jobs_api import Cluster

    address = arguments.address or os.environ.get("RAY_API_SERVER_ADDRESS", LOCAL_DASHBOARD)
    cluster = Cluster(address, arguments.insecure)
    if arguments.command == "list":
        print(cluster.jobs())
    elif arguments.command == "stop":
        print(f"{arguments.id}: {cluster.stop(arguments.id)}")
    elif arguments.follow:
        cluster.info(arguments.id)  # says so if there is no such job
        return follow(cluster, arguments.id, reconnect_s=60 * arguments.reconnect)
    else:
        print(cluster.logs(arguments.id), end="")
    return 0


def endpoint(arguments: argparse.Namespace) -> int:
    """list, status, roll-out, roll-back, stop."""
    from ..serve.rollout import operator

    return operator.operate(arguments.action, vars(arguments))


def new(arguments: argparse.Namespace) -> int:
    """Write a starter file."""
    from ..jobs.starter import copied, new_job

    text = copied(arguments.template, arguments.kind) if arguments.template else new_job(arguments.kind)
    path = Path(arguments.file or f"{arguments.kind}.yaml")
    if arguments.file == "-":
        print(text, end="")
        return 0
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise JobError(str(path), "exists already", "give another name") from None
    print(f"wrote {path}; fill it in, then: {command(f'{path} --dry-run')}")
    return 0


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema."""
    import json

    from ..jobs.job_file import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


def keys(arguments: argparse.Namespace) -> int:
    """Print the reference of all keys."""
    from ..jobs.starter import reference

    print(reference(), end="")
    return 0


def completion(arguments: argparse.Namespace) -> int:
    """Print a shell's completion script."""
    import shtab

    from .parser import parser

    print(shtab.complete(parser()[0], arguments.shell))
    return 0


COMMANDS = {"run": run, "doctor": doctor, "compare": compare, "diff": diff, "prune": prune, "endpoint": endpoint,
            "export": export, "new": new, "schema": schema, "keys": keys, "completion": completion}
"""Those of a cluster are in `manage`."""
