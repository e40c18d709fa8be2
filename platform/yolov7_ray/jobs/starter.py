"""A commented starter file for each kind of job, generated from the specification."""

import dataclasses
import inspect
import re
from typing import Any

import pydantic

from ..errors import JobError
from ..program import CHECKOUT, command
from . import document
from .kinds import KINDS, kind_named


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
