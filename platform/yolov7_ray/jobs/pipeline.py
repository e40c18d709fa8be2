"""Jobs in order: each step's outputs fill ``${step.output}`` in the steps after it."""

import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, GetJsonSchemaHandler, TypeAdapter, model_validator
from pydantic_core import CoreSchema, core_schema

from .. import storage
from ..cluster import local_ray, resources
from . import admission
from .execution import claimed, headline
from .job_file import any_of, validate, validated_by_kind
from .kind import JobKind
from .kinds import KINDS, kind_of
from .resumption import changes, refuse, resolved
from .spec import REFERENCE, Job, Name, UriPath

STATE_FILE = "pipeline.json"


class _Step:
    """Any kind of job except a pipeline, as the type of a field."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: pydantic.GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: validated_by_kind(value, cls.kinds()))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(TypeAdapter(any_of(cls.kinds())).core_schema)

    @staticmethod
    def kinds() -> list[str]:
        return [name for name in KINDS if name != "pipeline"]


class PipelineSpec(Job):
    """Jobs in order; later steps refer to earlier outputs as ${step.output}."""

    kind: Literal["pipeline"]
    steps: Annotated[dict[Name, Annotated[Job, _Step]], Field(min_length=1)]
    """Step name -> job, run in this order."""

    @model_validator(mode="after")
    def _check_references(self) -> "PipelineSpec":
        known: dict[str, Job] = {}
        for step, job in self.steps.items():
            for key, source, output in _references(job.model_dump(mode="json")):
                if source not in known:
                    raise ValueError(f"steps.{step}: ${{{source}.{output}}} names no earlier step; "
                                     f"earlier steps are {', '.join(known) or 'none'}")
                outputs, wanted = kind_of(known[source]).outputs, kind_of(job).takes.get(key)
                if output not in outputs:
                    raise ValueError(f"steps.{step}: step '{source}' ({known[source].kind}) has no output '{output}'; "
                                     f"it has {', '.join(outputs)}")
                if wanted and outputs[output] not in wanted:
                    fitting = [f"${{{source}.{name}}}" for name, what in outputs.items() if what in wanted]
                    raise ValueError(f"steps.{step}.{key}: ${{{source}.{output}}} is a {outputs[output]} and no "
                                     f"{' or '.join(wanted)}; give {' or '.join(fitting) or 'that of another step'}")
                if key == "job":  # what is not known before that step has run is taken from its like
                    job = self.steps[step] = _on(job, kind_of(known[source]).jobs_made(known[source])[output], step)
            known[step] = job
        return self


class Pipeline(JobKind[PipelineSpec]):
    """Steps that earlier runs of the same name have finished are not run again."""

    spec = PipelineSpec
    example = {"steps": {
        "ingest": {"kind": "ingest", "source": {"format": "shapes"}, "dataset": "datasets/shapes"},
        "train": {"kind": "train", "dataset": "${ingest.dataset}", "epochs": 10},
        "publish": {"kind": "publish", "model": "${train.checkpoint}", "registry": "registry", "publish_as": "shapes"},
    }}

    def run(self, spec: PipelineSpec, run_name: str) -> dict[str, Any]:
        """Run every step that is not finished; return step -> outputs.

        The outputs of finished steps are kept in ``<storage>/<run_name>/pipeline.json``. An endpoint stays up
        only as long as the process or cluster that started it, so such a step is always run.
        """
        state = storage.join(self.run_directory(spec, run_name), STATE_FILE)
        finished = storage.read_json(state)["finished"] if storage.exists(state) else {}
        for number, (step, job) in enumerate(spec.steps.items(), start=1):
            heading = f"[{number}/{len(spec.steps)}] {step} ({job.kind})"
            kind = kind_of(job)
            if step in finished and not kind.stays_up:
                print(f"{heading}: finished before", flush=True)
                continue
            print(heading, flush=True)
            started = time.monotonic()
            planned, inner = job, f"{run_name}-{step}"
            job = filled(planned, finished, f"{run_name}: steps.{step}")
            if kind.demand(job) != kind.demand(planned) and not local_ray.may_grow():  # more models than were known
                nodes = local_ray.nodes()
                admission.check(spec.model_copy(update={"steps": {step: job}}), resources.total(nodes), nodes)
            with claimed(job, inner):
                finished[step] = kind.run(job, inner)
            storage.write_json(state, {"finished": finished, "spec": spec.model_dump(mode="json")})
            print(f"{heading}: {headline(finished[step])} ({time.monotonic() - started:.0f} s)", flush=True)
        return {step: finished[step] for step in spec.steps}

    def check_resume(self, spec: PipelineSpec, run_name: str) -> list[str]:
        """A finished step must stay as it ran, apart from its resources; a step that has begun decides by its kind."""
        run = self.run_directory(spec, run_name)
        state = storage.join(run, STATE_FILE)
        earlier = storage.read_json(state) if storage.exists(state) else {"finished": {}, "spec": {"steps": {}}}
        finished, before, lines = earlier["finished"], resolved(PipelineSpec, earlier["spec"])["steps"], []
        for step, job in spec.steps.items():
            if step in finished and not kind_of(job).stays_up:
                found = [change for change in changes(before.get(step, {}), job.model_dump(mode="json"))
                         if not change.within(("name", "resources"))]
                refuse(f"run {run}", f"has finished step {step} with", found, "give that, or start a new run")
            elif all(source in finished for source, _ in REFERENCE.findall(job.model_dump_json())):
                job = filled(job, finished, f"{run_name}: steps.{step}")
                lines += [f"steps.{step}.{line}" for line in kind_of(job).check_resume(job, f"{run_name}-{step}")]
        return lines

    def run_directory(self, spec: PipelineSpec, run_name: str) -> str:
        """In the storage of the first step that has one."""
        root = next((job.storage for job in spec.steps.values() if hasattr(job, "storage")), "runs")
        return storage.join(root, run_name)

    def steps(self, spec: PipelineSpec) -> dict[str, Job]:
        return spec.steps

    def sent(self, spec: PipelineSpec) -> PipelineSpec:
        return spec.model_copy(update={"steps": {step: kind_of(job).sent(job) for step, job in spec.steps.items()}})

    def uris(self, spec: PipelineSpec) -> Iterator[tuple[UriPath, str]]:
        for name, job in spec.steps.items():
            yield from ((("steps", name, *path), uri) for path, uri in kind_of(job).uris(job))

    def next_command(self, spec: PipelineSpec, outputs: dict[str, Any]) -> str:
        step, job = list(spec.steps.items())[-1]
        return kind_of(job).next_command(filled(job, outputs, step), outputs[step])


def _on(job: Job, like: Job, step: str) -> Job:
    """``job.on(like)``, whose errors name the step."""
    try:
        return job.on(like)
    except pydantic.ValidationError as error:
        raise pydantic.ValidationError.from_exception_data(error.title, [
            {**detail, "loc": ("steps", step, *detail["loc"])} for detail in error.errors(include_url=False)]) from None


def _references(value: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """(key that it is the value of, step, output) of every ``${step.output}``."""
    if isinstance(value, str):
        yield from ((key, *found) for found in REFERENCE.findall(value))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _references(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item, key)


def filled(job: Job, outputs: dict[str, dict[str, Any]], where: str) -> Job:
    """The job with every ``${step.output}`` replaced; a value that is nothing else may become a section."""

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            whole = REFERENCE.fullmatch(value)
            if whole and isinstance(outputs[whole[1]][whole[2]], dict):
                return outputs[whole[1]][whole[2]]
            return REFERENCE.sub(lambda match: str(outputs[match[1]][match[2]]), value)
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        return [fill(item) for item in value] if isinstance(value, list) else value

    return validate(fill(job.model_dump(mode="json")), where)


KIND = Pipeline()
