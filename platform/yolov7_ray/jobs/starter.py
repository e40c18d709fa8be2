"""Starter files: a commented one for each kind, generated from the specification, or one of those that ship."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pydantic

from ..errors import JobError
from ..program import CHECKOUT, command
from . import document
from .kinds import KINDS, kind_named
from .spec import REFERENCE


def new_job(kind: str) -> str:
    """YAML of a job of this kind: example values for required keys, the rest commented with defaults."""
    if kind not in KINDS:
        raise JobError(command("new"), f"'{kind}' is unknown", f"choose {', '.join(KINDS)}")
    given, spec = kind_named(kind).example, kind_named(kind).spec
    job = spec.model_validate({"kind": kind, **given, **kind_named(kind).shown})
    lines = [f"# {inspect.getdoc(spec)}", f"kind: {kind}", ""]
    return "\n".join(lines + _section(job, given, indent="")) + "\n"


def reference() -> str:
    """Markdown with every key of every kind, and its default."""
    kinds = "\n".join(f"## {kind}\n\n```yaml\n{new_job(kind)}```\n" for kind in KINDS)
    return f"# Every key of every kind of job\n\nAs `{CHECKOUT} new KIND -` prints them; made by `{CHECKOUT} keys`.\n\n{kinds}"


def _section(part: Any, given: dict[str, Any], indent: str) -> list[str]:
    """The lines of one section: for each key its help, then ``key: value`` (commented where not given)."""
    lines = []
    for key, help_line in _keys(type(part)).items():
        if key == "kind" and not indent:
            continue
        value = getattr(part, key)
        if help_line:
            lines.append(f"{indent}# {help_line}")
        if _is_section(value):
            inner = given.get(key, {})
            body = _section(value, inner, indent + "  ")
            live = any(line.strip() and not line.lstrip().startswith("#") for line in body)
            lines += [f"{indent}{key}:" if live else f"{indent}# {key}:", *body]
        else:
            lines += _entry(key, given.get(key, _plain(value)), indent if key in given else f"{indent}# ")
        if not indent:
            lines.append("")
    return lines


def _entry(key: str, value: Any, prefix: str) -> list[str]:
    """``key: value`` in YAML, every line behind ``prefix``."""
    if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
        text = document.dump({key: value})
    else:
        flow = document.dump(value, default_flow_style=True, width=1000)
        text = f"{key}: {flow.removesuffix(chr(10)).removesuffix('...').strip()}"
    return [prefix + line for line in text.splitlines()]


def _is_section(value: Any) -> bool:
    return isinstance(value, pydantic.BaseModel) or dataclasses.is_dataclass(value)


def _plain(value: Any) -> Any:
    return pydantic.TypeAdapter(Any).dump_python(value, mode="json")


def _keys(cls: type) -> dict[str, str]:
    """Key -> line of help, in the order of the specification."""
    if issubclass(cls, pydantic.BaseModel):
        return {name: " ".join((field.description or "").split()) for name, field in cls.model_fields.items()}
    source = inspect.getsource(next(base for base in cls.__mro__ if base.__module__.startswith("yolov7.")))
    found = dict(re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', source, re.MULTILINE | re.DOTALL))
    return {field.name: " ".join(found.get(field.name, "").split()) for field in dataclasses.fields(cls)}


# --- the job files that ship --------------------------------------------------------------------------


def copied(name: str, kind: str) -> str:
    """The text of the file ``name``, or, if it is a pipeline, of its step of that kind; JobError if there is none."""
    path = document.SHIPPED / f"{name.removeprefix('jobs/').removesuffix('.yaml')}.yaml"
    if not path.is_file():
        fitting = ", ".join(sorted(found.stem for found in document.SHIPPED.glob("*.yaml") if _kinds(found) & {kind}))
        raise JobError(f"--from {name}", "does not ship", f"choose {fitting or 'another kind'}")
    if kind not in KINDS:
        raise JobError("new", f"'{kind}' is unknown", f"choose {', '.join(KINDS)}")
    found = document.read(path)
    if found["kind"] == kind:
        return path.read_text(encoding="utf-8")
    steps = found.get("steps", {})
    step = next((step for step in steps.values() if step["kind"] == kind), None)
    if step is None:
        raise JobError(f"--from {name}", f"holds no job of kind {kind}",
                       f"choose {', '.join(sorted(_kinds(path)))} in place of {kind}, or another file")
    alone = _without_references(step, steps)
    return f"# {kind_named(kind).spec.__doc__}\n# The step of jobs/{path.name}, alone.\n" \
           + document.dump({"kind": kind, **{key: value for key, value in alone.items() if key != "kind"}})


def _kinds(path: Path) -> set[str]:
    """The kinds of the jobs in a file."""
    found = document.read(path)
    return {found["kind"], *(step["kind"] for step in found.get("steps", {}).values())}


def _without_references(value: Any, steps: dict[str, Any]) -> Any:
    """The value with each ``${step.key}`` replaced by that key of the step, where the step has it."""
    if isinstance(value, dict):
        return {key: _without_references(item, steps) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    return REFERENCE.sub(lambda found: _output(steps[found[1]], found[2]), value)


def _output(step: dict[str, Any], key: str) -> str:
    """What an output of a step is called once it has run; a word to fill in where that is not known."""
    if key == "model" and "publish_as" in step:
        return f"{step['publish_as']}@latest"
    value = str(step.get(key, "${}"))
    return f"YOUR-{key.upper()}" if REFERENCE.search(value) or value == "${}" else value
