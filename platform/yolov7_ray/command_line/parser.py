"""The words of the command line."""

import argparse
from collections.abc import Collection

from .. import program

HELP = """A job file in, a trained, tuned, published or served detector out.

    {0} jobs/quickstart.yaml                       on this machine, with a Ray of its own
    {0} jobs/x.yaml --address http://HEAD:8265     on a cluster, logs streamed back
    {0} jobs/x.yaml --set epochs=10 --dry-run      what it would do, without starting anything
    {0} list | logs ID | stop ID                   jobs on a cluster
    {0} endpoint list | status | stop              the endpoint of this machine, or with --address
    {0} endpoint roll-out MODEL@ALIAS | roll-back  another version, step by step
    {0} doctor URI --output DIR                    what is wrong with a dataset; here or on a cluster
    {0} export MODEL --output DIR                  a model as ONNX or for PyTorch, checked
    {0} compare RUN RUN … --output DIR             figures, classes and jobs of runs side by side
    {0} diff URI [URI]                             what changed in a dataset, or between two
    {0} prune URI                                  remove what only its earlier contents need
    {0} new KIND [FILE] [--from NAME]              a commented starter file, or one of the files that ship
    {0} keys                                       every key of every kind, as Markdown
    {0} schema                                     JSON Schema of job files, for editors
    {0} completion bash                            completion for your shell: eval "$({0} completion bash)"
"""


def parse(words: list[str]) -> argparse.Namespace:
    """The command line; without a command's name, the first word is a job file to run."""
    found, names = parser()
    implied = words and words[0] not in (*names, "-h", "--help", "--version")
    return found.parse_args(["run", *words] if implied else words)


def parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """The parser of the command line, and the commands' names."""
    called = program.command("").strip()
    found = argparse.ArgumentParser(prog=called.removeprefix("python "), description=HELP.format(called),
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--version", action="version", version=f"yolov7-ray {program.VERSION}")
    commands = found.add_subparsers(dest="command", required=True, metavar="JOB.yaml | COMMAND")
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
    run_.add_argument("--json", action="store_true", help="end with a line of JSON: the job's outputs, for scripts")
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
    export_ = commands.add_parser("export", parents=[running], help="write a model as ONNX or for PyTorch", description=(
        "Fold a model, write it for other programs and compare the files with it: a job of kind export from the command line."))
    export_.add_argument("model", help="run, checkpoint or .safetensors URI, or NAME@ALIAS of --registry")
    export_.add_argument("--registry", help="where NAME@ALIAS is looked up")
    export_.add_argument("--output", metavar="DIR", default="exported", help="default: exported")
    export_.add_argument("--format", action="append", dest="formats", choices=["onnx", "torch", "safetensors"],
                         help="default: onnx; may be repeated")
    export_.add_argument("--image-size", type=int, metavar="PX", dest="image_size_px", help="default: as it was trained")
    export_.add_argument("--any-size", action="store_true", help="images of any multiples of the stride")
    export_.add_argument("--nms", action="store_true", help="with suppression in the graph")
    compare_ = commands.add_parser("compare", help="put runs side by side", description=(
        "Put runs of train and evaluate jobs side by side: AP, cost, speed, classes, what differs of their jobs; the "
        "differences are to the first run. Nothing of a run is changed."))
    compare_.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run, local or s3://; 2 to 8")
    compare_.add_argument("--output", metavar="DIR", help="write a page with curves, comparison.html, into this directory")
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
    new_.add_argument("--from", metavar="NAME", dest="template", help=(
        "copy a job file that ships, e.g. quickstart, or its step of that kind; an unknown NAME lists them"))
    commands.add_parser("schema", help="print the JSON Schema of job files")
    commands.add_parser("keys", help="print every key of every kind, as Markdown")
    commands.add_parser("completion", help="print completion for a shell").add_argument(
        "shell", choices=["bash", "zsh", "tcsh"])
    return found, commands.choices


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


