"""The only door: a job file in, a trained, tuned, published or served detector out.

    python submit.py jobs/quickstart.yaml                       on this machine, with a Ray of its own
    python submit.py jobs/x.yaml --address http://HEAD:8265     on a cluster, logs streamed back
    python submit.py jobs/x.yaml --set epochs=10 --dry-run      what it would do, without starting anything
    python submit.py list | logs ID | stop ID                   jobs on a cluster
    python submit.py endpoint list | status | stop              the endpoint of this machine, or with --address
    python submit.py endpoint roll-out MODEL@ALIAS | roll-back  another version, step by step
    python submit.py doctor URI --output DIR                    what is wrong with a dataset; here or on a cluster
    python submit.py diff URI [URI]                             what changed in a dataset, or between two
    python submit.py prune URI                                  remove what only its earlier contents need
    python submit.py new KIND [FILE]                            a commented starter file
    python submit.py schema                                     JSON Schema of job files, for editors
"""

import argparse
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "platform")]  # where yolov7_ray is, if it is not installed

from yolov7_ray.errors import JobError

LOCAL_DASHBOARD = "http://127.0.0.1:8265"
EXIT_INTERRUPTED = 130


def parse(words: list[str]) -> argparse.Namespace:
    """The command line; without a command's name, the first word is a job file to run."""
    parser = argparse.ArgumentParser(prog="submit.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="JOB.yaml | COMMAND")
    cluster = argparse.ArgumentParser(add_help=False)
    cluster.add_argument("--address", help="dashboard of a Ray cluster, e.g. http://HEAD:8265")
    cluster.add_argument("--insecure", action="store_true", help="accept a remote cluster that asks for no token")

    following = argparse.ArgumentParser(add_help=False)
    following.add_argument("--reconnect", type=minutes, default=10, metavar="MINUTES",
                           help="how long the log of a job on a cluster is tried again when the connection is lost "
                                "(default: 10)")
    running = argparse.ArgumentParser(add_help=False, parents=[cluster, following])
    running.add_argument("--dry-run", action="store_true", help="check everything and say what would be done")
    name = running.add_mutually_exclusive_group()
    name.add_argument("--name", help="name of the run (default: a unique one)")
    name.add_argument("--resume", metavar="NAME", help="go on with this run where it stopped")
    running.add_argument("--detach", action="store_true", help="with --address: do not wait for the job")
    running.add_argument("--no-admission", action="store_true",
                         help="do not check that the cluster is large enough (an autoscaler will make it so)")
    running.add_argument("--forward-aws-credentials", action="store_true",
                         help="with --address: send this shell's AWS keys; whoever sees the dashboard can read them")
    running.add_argument("--verbose", action="store_true", help="show what Ray and the workers print, too")

    run_ = commands.add_parser("run", parents=[running], help="run a job file (the word may be left out)")
    run_.add_argument("job", help="job file")
    run_.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                      help="override a key, e.g. --set data.image_size_px=320 (the value is YAML; may be repeated)")
    commands.add_parser("list", parents=[cluster], help="jobs of a cluster")
    logs_ = commands.add_parser("logs", parents=[cluster, following], help="what a job has printed")
    logs_.add_argument("id")
    logs_.add_argument("--follow", "-f", action="store_true", help="go on until the job ends")
    commands.add_parser("stop", parents=[cluster], help="stop a job").add_argument("id")
    endpoint_ = commands.add_parser("endpoint", help="look after the endpoint of this machine or of a cluster")
    add_endpoint(endpoint_.add_subparsers(dest="action", required=True), cluster)
    doctor_ = commands.add_parser(
        "doctor", parents=[running], help="examine every image and object of an ingested dataset", description=(
            "Examine every image and object of an ingested dataset: a job of kind doctor from the command line. "
            "Exit status 1: there are errors. Raw sources are checked when they are ingested."))
    doctor_.add_argument("dataset", help="Arrow dataset: a local directory or s3://bucket/prefix")
    doctor_.add_argument("--architecture", help="whose anchors are to fit (default: yolov7)")
    doctor_.add_argument("--image-size", type=int, metavar="PX", dest="image_size_px",
                         help="side at which the detector will see the images (default: the architecture's)")
    doctor_.add_argument("--output", metavar="DIR", help="write a page with pictures, and JSON, into this directory")
    doctor_.add_argument("--json", metavar="FILE", dest="json_file", help="write JSON into this file")
    diff_ = commands.add_parser("diff", help="what changed in an ingested dataset", description=(
        "Which images came, went or moved between splits, and which labels changed. URI@FINGERPRINT is an earlier "
        "content of a dataset that has grown; its beginning is enough."))
    diff_.add_argument("dataset", help="with one URI: its current content against the one before")
    diff_.add_argument("other", nargs="?", metavar="dataset", help="the later one")
    prune_ = commands.add_parser("prune", help="remove what only the earlier contents of a dataset need")
    prune_.add_argument("dataset")
    prune_.add_argument("--keep", action="append", default=[], metavar="FINGERPRINT",
                        help="an earlier content that stays readable (its beginning is enough; may be repeated)")
    prune_.add_argument("--yes", action="store_true", help="do it; without this word, only say what would be done")
    new_ = commands.add_parser("new", help="write a commented starter file")
    new_.add_argument("kind", help="ingest, doctor, train, evaluate, tune, publish, predict, serve, export-dataset, "
                                     "or pipeline")
    new_.add_argument("file", nargs="?", help="default: KIND.yaml; - for the terminal")
    commands.add_parser("schema", help="print the JSON Schema of job files")
    implied = words and words[0] not in (*commands.choices, "-h", "--help")
    return parser.parse_args(["run", *words] if implied else words)


def add_endpoint(actions, cluster: argparse.ArgumentParser) -> None:
    """What can be done to an endpoint."""
    actions.add_parser("list", parents=[cluster], help="its models, a line each")
    actions.add_parser("status", parents=[cluster], help="its roll-outs: counts of both versions, events, reasons")
    actions.add_parser("stop", parents=[cluster], help="remove it")
    actions.add_parser("roll-back", parents=[cluster], help="end a roll-out, or undo the last one").add_argument(
        "model", nargs="?", metavar="NAME", help="served model; may be left out where there is one")
    out = actions.add_parser("roll-out", parents=[cluster], help="replace a model's version step by step", description=(
        "A candidate answers a growing share of the requests beside the stable version, and is compared with it: errors, "
        "p99 latency, empty answers, scores, classes. It is promoted after the last step, or rolled back with the reason."))
    out.add_argument("target", metavar="[NAME=]MODEL@ALIAS", help="served model and version: MODEL@ALIAS or MODEL:VERSION")
    out.add_argument("--weight", metavar="PERCENT", help="share of the first step; of a shadow: of its copies")
    out.add_argument("--steps", metavar="5,25,100", help="shares; 100 promotes (default: 5,25,100)")
    out.add_argument("--hold", metavar="10m", help="how long each step lasts at least (default: 10m)")
    out.add_argument("--shadow", action="store_true", help="the candidate gets copies; its answers are only compared")
    out.add_argument("--sticky", metavar="HEADER", help="requests with the same value of this header go to one version")
    out.add_argument("--limit", action="append", default=[], metavar="KEY=VALUE", dest="limits", help=(
        "threshold: min_requests=200, max_errors=1%%, max_latency=1.5 (times the stable p99), max_empty=10%%, "
        "max_shift=0.25 (population stability index), min_agreement=0 (of a shadow); may be repeated"))


def minutes(text: str) -> float:
    """A number of minutes from a word of the command line; ValueError unless it is finite and not negative."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def run(arguments: argparse.Namespace) -> int:
    """Run a job file."""
    from yolov7_ray.jobs import job_file

    return carry_out(job_file.load_job(arguments.job, arguments.overrides), arguments.job, arguments)


def doctor(arguments: argparse.Namespace) -> int:
    """Examine a dataset."""
    from yolov7_ray.jobs import job_file

    keys = ("dataset", "architecture", "image_size_px", "output", "json_file")
    given = {key: value for key in keys if (value := getattr(arguments, key)) is not None}
    return carry_out(job_file.validate({"kind": "doctor", **given}, "doctor"), f"doctor {arguments.dataset}", arguments)


def diff(arguments: argparse.Namespace) -> int:
    """Say what changed in a dataset."""
    from yolov7_ray.data.history.diff import diff as changes

    print("\n".join(changes(arguments.dataset, arguments.other)))
    return 0


def prune(arguments: argparse.Namespace) -> int:
    """Remove earlier contents."""
    from yolov7_ray.data.history.prune import prune as remove

    print("\n".join(remove(arguments.dataset, arguments.keep, arguments.yes)))
    return 0


def carry_out(job, where: str, arguments: argparse.Namespace) -> int:
    """Run a job, which came from `where`, here or on a cluster."""
    from yolov7_ray.jobs import job_file, paths

    name = arguments.resume or arguments.name or job_file.run_name(job)
    if arguments.address:
        paths.require_shared(job, where)
    else:
        job = paths.absolute(job)
    if arguments.dry_run:
        from yolov7_ray.jobs.dry_run import plan

        print(plan(job))
        return 0
    if arguments.address:
        return run_remotely(arguments, job, name)
    from yolov7_ray.jobs.execution import after_interrupt, execute

    try:
        execute(job, name, resume=bool(arguments.resume), admit=not arguments.no_admission, verbose=arguments.verbose,
                where=where)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {after_interrupt(job, name, where)}", flush=True)
        return EXIT_INTERRUPTED
    return 0


def run_remotely(arguments: argparse.Namespace, job, name: str) -> int:
    """Submit to the cluster and follow; the exit status is the job's."""
    from yolov7_ray.cluster.follower import follow
    from yolov7_ray.cluster.jobs_api import Cluster
    from yolov7_ray.jobs.kinds import kind_of

    job = kind_of(job).sent(job)
    cluster = Cluster(arguments.address, arguments.insecure)
    job_id = cluster.submit(job, name, resume=bool(arguments.resume), admit=not arguments.no_admission,
                            verbose=arguments.verbose, forward_credentials=arguments.forward_aws_credentials)
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
    print(f"{job_id} goes on; python submit.py logs {job_id} --follow --address {cluster.address}")
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
    from yolov7_ray.cluster.follower import follow
    from yolov7_ray.cluster.jobs_api import Cluster

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
    from yolov7_ray.serve.rollout import operator

    return operator.operate(arguments.action, vars(arguments))


def new(arguments: argparse.Namespace) -> int:
    """Write a starter file."""
    from yolov7_ray.jobs.starter import new_job

    text, path = new_job(arguments.kind), Path(arguments.file or f"{arguments.kind}.yaml")
    if arguments.file == "-":
        print(text, end="")
        return 0
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise JobError(str(path), "exists already", "give another name") from None
    print(f"wrote {path}; fill it in, then: python submit.py {path} --dry-run")
    return 0


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema."""
    import json

    from yolov7_ray.jobs.job_file import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


def main(words: list[str] | None = None) -> int:
    arguments = parse(sys.argv[1:] if words is None else words)
    commands = {"run": run, "doctor": doctor, "diff": diff, "prune": prune, "endpoint": endpoint, "new": new, "schema": schema}
    command = commands.get(arguments.command, manage)
    try:
        return command(arguments)
    except JobError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
