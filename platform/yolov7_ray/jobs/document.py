"""YAML text and ``--set`` values -> one plain mapping, with the location of every error."""

import re
from pathlib import Path
from typing import Any

import yaml

from .. import storage
from ..errors import JobError
from ..program import command

Document = dict[str, Any]
_PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = found if (found := _PACKAGE / "templates").is_dir() else _PACKAGE.parents[1] / "jobs"
"""The job files of an installed package, or of the checkout; `jobs/NAME.yaml` means one of them where there is no such
file."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values (1e-3 is a number; no, on and 1:30 are words); a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key.value}' is given twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
     "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))


class _Dumper(yaml.SafeDumper):
    """Quotes every text that `_Loader`, or a reader of YAML 1.1, would take for something else (on, 010, 1e3)."""


_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, []), *yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])]
    for first in {*_Loader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}


def dump(value: Any, **style: Any) -> str:
    """YAML text that `parse` reads back as the same value; ``style`` as of ``yaml.dump``."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **style)


def parse(text: str, where: str) -> Any:
    """The value of a YAML text; JobError with line and column if it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        location = f"{where}: line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise JobError(location, error.problem or "is not YAML", "a job file is YAML: `key: value` lines") from None
    except yaml.YAMLError as error:
        raise JobError(where, f"is not YAML ({error})", "a job file is YAML: `key: value` lines") from None


def read(path: str | Path) -> Document:
    """The mapping in a job file (local or s3://); JobError if there is no such file or it holds something else."""
    if storage.is_remote(str(path)):
        return mapping(storage.read_bytes(str(path)).decode(errors="replace"), str(path))
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path.parent == Path("jobs") and (shipped := SHIPPED / path.name).is_file():
            return mapping(shipped.read_text(encoding="utf-8"), str(path))
        beside = sorted(p.name for p in path.parent.glob("*.y*ml"))[:20] if path.parent.is_dir() else []
        remedy = f"{path.parent} holds {', '.join(beside)}" if beside else "give the path of a job file"
        raise JobError(str(path), "no such job file", remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(str(path), f"cannot be read ({error})", "give the path of a job file") from None
    return mapping(text, str(path))


def mapping(text: str, where: str) -> Document:
    """The mapping in a job text."""
    document = parse(text, where)
    if not isinstance(document, dict):
        arrived = "is empty" if document is None else f"holds {type(document).__name__} {str(document)[:40]!r}"
        raise JobError(where, arrived, "a job file is a mapping that begins with `kind: …`; "
                                       f"`{command('new KIND')}` writes one")
    return document


def overlaid(below: Document, above: Document) -> Document:
    """All keys of both; where both have one, that of ``above``, section by section."""
    return below | {key: overlaid(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict)
                    else value for key, value in above.items()}


def assign(document: Document, override: str) -> tuple[str, ...]:
    """Set one ``a.b=value`` (the value is YAML) in place; return the path that was set.

    A key that itself contains dots (``search.optimizer.learning_rate``) is matched as a whole.
    """
    dotted, equals, text = override.partition("=")
    if not equals or not dotted.strip():
        raise JobError(f"--set {override}", "has no `key=value`", "give e.g. --set data.image_size_px=320")
    path: list[str] = []
    node: Any = document
    rest = dotted.strip()
    while True:
        if not isinstance(node, dict):
            raise JobError(f"--set {override}", f"{'.'.join(path)} is {node!r}, which holds no keys",
                           f"give --set {'.'.join(path)}=value")
        key = _first_key(node, rest, in_search=path[-1:] == ["search"])
        path.append(key)
        rest = rest[len(key) + 1:]
        if not rest:
            node[key] = parse(text, f"--set {override}")
            return tuple(path)
        section = node.get(key)
        if section is None or isinstance(section, dict):  # a copy: by an alias, other places may hold the same section
            section = node[key] = dict(section or {})
        node = section


def _first_key(node: dict, rest: str, in_search: bool) -> str:
    """The key that a dotted path begins with: the longest existing one, else up to the first dot."""
    known = [key for key in node if isinstance(key, str) and (rest + ".").startswith(key + ".")]
    if known:
        return max(known, key=len)
    return rest if in_search else rest.partition(".")[0]
