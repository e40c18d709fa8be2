"""Checks before a job starts whether it can ever run on a cluster: Ray itself would wait forever."""

from collections.abc import Iterator, Sequence

from ..cluster.resources import Amounts, Demand, capacity, in_words, plural
from ..errors import JobError
from .kinds import kind_of
from .spec import Job

NO_RESOURCES = {"CPU": 0.0, "GPU": 0.0}


def requested(job: Job) -> dict[str, float]:
    """CPUs and GPUs that a job holds at its busiest: {"CPU": 2, "GPU": 0}."""
    peak = dict(NO_RESOURCES)
    for _, step, held in _steps(job):
        total = demand(step).total
        peak = {key: max(peak[key], total[key] + held[key]) for key in peak}
    return peak


def demand(job: Job) -> Demand:
    """Resources that one job (not a pipeline) holds at the same time."""
    return kind_of(job).demand(job)


def check(job: Job, available: Amounts, nodes: Sequence[Amounts] = ()) -> None:
    """JobError if the job can never fit into ``available``, or (where given) its processes onto ``nodes``."""
    for name, step, held in _steps(job):
        wanted = demand(step)
        where = f"{job.name or job.kind}: steps.{name}" if name else (job.name or job.kind)
        for key, amount in wanted.total.items():
            if amount + held[key] > available.get(key, 0) + 1e-6:
                beside = f" beside {in_words(held)} that earlier steps keep" if held[key] else ""
                raise JobError(where, f"asks for {_asks(wanted)}{beside}, but there are {in_words(available)}",
                               _remedy(wanted, name, available))
        if nodes and wanted.count > sum(capacity(wanted.each, node) for node in nodes):
            largest = {key: max(node.get(key, 0) for node in nodes) for key in ("CPU", "GPU")}
            raise JobError(where, f"asks for {_asks(wanted)}, which the cluster's {plural(len(nodes), 'node')} cannot "
                                  f"hold together: {'; '.join(map(in_words, nodes[:8]))}",
                           _remedy(wanted, name, largest))


def _steps(job: Job) -> Iterator[tuple[str, Job, dict[str, float]]]:
    """Each step, with the resources that earlier steps keep because they stay up."""
    held = dict(NO_RESOURCES)
    for name, step in kind_of(job).steps(job).items():
        yield name, step, dict(held)
        if kind_of(step).stays_up:
            held = {key: held[key] + amount for key, amount in demand(step).total.items()}


def _asks(wanted: Demand) -> str:
    return f"{in_words(wanted.total)} ({wanted.what} with {in_words(wanted.each)} each)"


def _remedy(wanted: Demand, step: str, most: Amounts) -> str:
    """Fewer processes, or smaller ones if not even one fits into ``most``."""
    too_large = [key for key in wanted.each if wanted.each[key] > most.get(key, 0)]
    keys = {"CPU": wanted.cpus_key, "GPU": wanted.gpus_key}
    lower = keys[too_large[-1]] if too_large else wanted.count_key
    lower = f"steps.{step}.{lower}" if step and lower else lower
    return " or ".join(filter(None, [f"lower {lower} (--set {lower}=…)" if lower else "",
                                     "add nodes (--no-admission where an autoscaler will)"]))
