"""The job files that ship with the package: those of `jobs/` in a checkout."""

from pathlib import Path
from typing import Any

from ..errors import JobError
from . import document
from .kinds import KINDS, kind_named
from .spec import REFERENCE



def directory() -> Path:
    """Where they are: in the installed package, or in the checkout that this module is in."""
    return document.SHIPPED if document.SHIPPED.is_dir() else Path(__file__).resolve().parents[3] / "jobs"


def copied(name: str, kind: str) -> str:
    """The text of the file ``name``, or, if it is a pipeline, of its step of that kind; JobError if there is none."""
    path = directory() / f"{name.removeprefix('jobs/').removesuffix('.yaml')}.yaml"
    if not path.is_file():
        fitting = ", ".join(sorted(found.stem for found in directory().glob("*.yaml") if _kinds(found) & {kind}))
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
    if step["kind"] == "publish" and key == "model":
        return f"{step['publish_as']}@latest"
    value = str(step.get(key, "${}"))
    return f"YOUR-{key.upper()}" if REFERENCE.search(value) or value == "${}" else value
