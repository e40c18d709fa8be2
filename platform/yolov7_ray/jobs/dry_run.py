"""The text of --dry-run: what a job would do, without starting anything."""

from . import admission, document, paths
from .kind import Upcoming
from .kinds import kind_of
from .spec import Job


def plan(job: Job) -> str:
    """The resolved job, its resources and costs, and findings about its inputs.

    Raises JobError if the job could not run: no such dataset, split, source or model, classes that differ. What
    cannot be reached from here is said; resources and costs are told all the same.
    """
    unreachable = {uri: str(error) for uri, error in paths.unreachable(job).items()}
    resolved = document.dump(job.model_dump(mode="json"), default_flow_style=None, width=110)
    upcoming, blocks = Upcoming(unreachable=unreachable), []
    for name, step in kind_of(job).steps(job).items():
        step = _with_datasets(step, upcoming)
        kind = kind_of(step)
        out_of_reach = [(path[-1], unreachable[uri]) for path, uri in kind.uris(step) if uri in unreachable]
        lines = [("asks for", _asks(step))]
        if not out_of_reach or kind.plans_unreachable:
            lines += kind.dry_run(step, upcoming)
        lines += [line for key, why in out_of_reach if (line := (key, f"cannot be reached: {why}")) not in lines]
        heading = f"{name} ({step.kind})" if name else f"{job.name or job.kind} ({step.kind})"
        blocks.append("\n".join([heading, *(f"  {key:<10}{text}" for key, text in lines)]))
        upcoming.add(name, kind_of(step), step)
    return "\n".join([resolved, *blocks, "Nothing was started: this is a dry run."])


def _asks(job: Job) -> str:
    amounts = admission.requested(job)
    return f"{amounts['CPU']:g} CPU and {amounts['GPU']:g} GPU ({admission.demand(job).what})"


def _with_datasets(job: Job, upcoming: Upcoming) -> Job:
    """The step with ``${step.dataset}`` replaced by the URI known in advance."""
    expected = upcoming.datasets.get(getattr(job, "dataset", None))
    return job.model_copy(update={"dataset": expected.uri}) if expected else job
