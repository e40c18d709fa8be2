"""Whether a job can ever run on a cluster, said before it starts: Ray itself would wait for ever."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .errors import JobError
from .spec import EvaluateSpec, Job, PipelineSpec, PredictSpec, Resources, ServeSpec, TrainSpec, TuneSpec

TRIAL_DRIVER_CPUS = 0.01
"""What Tune reserves for the driver of a trial, beside its workers."""

Amounts = Mapping[str, float]
"""Resource name -> amount, as Ray counts: {"CPU": 8, "GPU": 2}."""


@dataclass(frozen=True)
class Demand:
    """So many equal processes at the same time."""

    count: int
    cpus_each: float
    gpus_each: float
    what: str
    """What they are, e.g. "2 workers"."""
    count_key: str = ""
    cpus_key: str = ""
    gpus_key: str = ""
    """Keys of the job file that make the demand smaller."""
    extra_cpus: float = 0
    """CPUs beside them that may come from any node."""

    @property
    def each(self) -> Amounts:
        """What one process needs, all of it on one node."""
        return {key: amount for key, amount in (("CPU", self.cpus_each), ("GPU", self.gpus_each)) if amount}

    @property
    def total(self) -> dict[str, float]:
        return {"CPU": self.count * self.cpus_each + self.extra_cpus, "GPU": self.count * self.gpus_each}


def demand(spec: Job) -> Demand:
    """What one job (no pipeline) holds at the same time."""
    if isinstance(spec, TrainSpec | EvaluateSpec | PredictSpec):
        return _workers(spec.resources, 1, "resources")
    if isinstance(spec, TuneSpec):
        return _workers(spec.train.resources, min(spec.trials, spec.max_concurrent_trials or 1), "train.resources")
    if isinstance(spec, ServeSpec):
        return Demand(len(spec.models) * spec.replicas, spec.cpus_per_replica, spec.gpus_per_replica,
                      f"{_plural(len(spec.models), 'model')} of {_plural(spec.replicas, 'replica')}",
                      "replicas", "cpus_per_replica", "gpus_per_replica")
    return Demand(1, 1, 0, "1 task")


def _workers(resources: Resources, trials: int, section: str) -> Demand:
    least, most = resources.worker_range
    workers = _plural(least, "worker") if least == most else f"{least} to {most} workers"
    tuning = section == "train.resources"
    return Demand(trials * least, resources.cpus_per_worker, resources.gpus_per_worker,
                  f"{_plural(trials, 'trial')} of {workers}" if tuning else workers,
                  "max_concurrent_trials" if trials > 1 else f"{section}.workers",
                  f"{section}.cpus_per_worker", f"{section}.gpus_per_worker",
                  extra_cpus=trials * TRIAL_DRIVER_CPUS if tuning else 0)


def requested(spec: Job) -> dict[str, float]:
    """CPUs and GPUs that a job holds at its busiest: {"CPU": 2, "GPU": 0}."""
    if not isinstance(spec, PipelineSpec):
        return demand(spec).total
    peak = {"CPU": 0.0, "GPU": 0.0}
    for _, step, standing in _pipeline(spec):
        total = demand(step).total
        peak = {key: max(peak[key], total[key] + standing[key]) for key in peak}
    return peak


def trials_at_once(spec: TuneSpec, available: Amounts) -> int:
    """How many trials a cluster with ``available`` resources holds at the same time; at least 1."""
    r = spec.train.resources
    each = {"CPU": r.workers * r.cpus_per_worker + TRIAL_DRIVER_CPUS, "GPU": r.workers * r.gpus_per_worker}
    return max(1, min(spec.max_concurrent_trials or spec.trials, _capacity(each, available)))


def check(spec: Job, available: Amounts, nodes: Sequence[Amounts] = ()) -> None:
    """JobError if the job can never fit into ``available``, or (where given) its processes onto ``nodes``."""
    steps = _pipeline(spec) if isinstance(spec, PipelineSpec) else [("", spec, {"CPU": 0.0, "GPU": 0.0})]
    for name, step, standing in steps:
        wanted = demand(step)
        where = f"{spec.name or spec.kind}: steps.{name}" if name else (spec.name or spec.kind)
        for key, amount in wanted.total.items():
            if amount + standing[key] > available.get(key, 0) + 1e-6:
                beside = f" beside {_amounts(standing)} that earlier steps keep" if standing[key] else ""
                raise JobError(where, f"asks for {_asks(wanted)}{beside}, but there are {_amounts(available)}",
                               _remedy(wanted, name, available))
        if nodes and wanted.count > sum(_capacity(wanted.each, node) for node in nodes):
            largest = {key: max(node.get(key, 0) for node in nodes) for key in ("CPU", "GPU")}
            raise JobError(where, f"asks for {_asks(wanted)}, which the cluster's {_plural(len(nodes), 'node')} cannot "
                                  f"hold together: {'; '.join(map(_amounts, nodes[:8]))}",
                           _remedy(wanted, name, largest))


def _pipeline(spec: PipelineSpec) -> Iterator[tuple[str, Job, dict[str, float]]]:
    """Each step, with what the endpoints deployed before it go on holding."""
    standing = {"CPU": 0.0, "GPU": 0.0}
    for name, step in spec.steps.items():
        yield name, step, dict(standing)
        if isinstance(step, ServeSpec):
            standing = {key: standing[key] + amount for key, amount in demand(step).total.items()}


def _capacity(each: Amounts, node: Amounts) -> int:
    """How many processes that need ``each`` fit onto one node."""
    rooms = [math.floor(node.get(key, 0) / amount + 1e-6) for key, amount in each.items() if amount]
    return min(rooms, default=10**9)


def _asks(wanted: Demand) -> str:
    extra = f" and {wanted.extra_cpus:g} CPU for the drivers" if wanted.extra_cpus else ""
    return f"{_amounts(wanted.total)} ({wanted.what} with {_amounts(wanted.each)} each{extra})"


def _remedy(wanted: Demand, step: str, most: Amounts) -> str:
    """Fewer processes, or smaller ones where not even one fits into ``most``."""
    too_large = [key for key in wanted.each if wanted.each[key] > most.get(key, 0)]
    keys = {"CPU": wanted.cpus_key, "GPU": wanted.gpus_key}
    lower = keys[too_large[-1]] if too_large else wanted.count_key
    lower = f"steps.{step}.{lower}" if step and lower else lower
    return " or ".join(filter(None, [f"lower {lower} (--set {lower}=…)" if lower else "",
                                     "add nodes (--no-admission where an autoscaler will)"]))


def _amounts(amounts: Amounts) -> str:
    return " and ".join(f"{amounts.get(key, 0):g} {key}" for key in ("CPU", "GPU"))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
