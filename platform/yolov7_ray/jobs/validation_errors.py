"""Validation errors of a job -> lines with location, problem and remedy."""

import difflib
import re
from typing import Any

import pydantic

from ..errors import JobError
from .spec import shortened

_UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}
_MISSING_KEY = {"missing", "missing_argument"}
Location = tuple[str | int, ...]


def job_error(error: pydantic.ValidationError, document: Any, schema: dict, where: str,
              overrides: list[tuple[str, ...]] = []) -> JobError:
    """One JobError with a line for every validation error in ``document``.

    ``schema`` is the JSON Schema of the document; ``overrides`` are the paths given by --set: an error at or below
    one of them is attributed to --set instead of the file.
    """
    found = []
    for detail in error.errors(include_url=False):
        path = _path(detail["loc"], document)
        if detail["type"] in _MISSING_KEY | _UNKNOWN_KEY and path[-1:] != detail["loc"][-1:]:
            path = (*path, detail["loc"][-1])
        inner, problem, remedy = _problem_and_remedy(detail, schema)
        path = (*path, *(inner[1:] if inner[:1] == path[-1:] else inner))
        found.append(JobError(_format_location(path, where, overrides), problem, remedy))
    unique = list({str(e): e for e in found}.values())
    return unique[0] if len(unique) == 1 else JobError("", "\n".join(str(e) for e in unique))


def from_value_error(error: ValueError, where: str, overrides: list[tuple[str, ...]] = []) -> JobError:
    """A ValueError of our own validators, ``path: problem; remedy``, as JobError."""
    path, problem, remedy = _split_message(str(error))
    return JobError(_format_location(path, where, overrides), problem, remedy)


def _format_location(path: Location, where: str, overrides: list[tuple[str, ...]]) -> str:
    dotted = ".".join(map(str, path))
    given = any(_within(dotted, ".".join(o)) or _within(".".join(o), dotted) for o in overrides)
    return ": ".join(filter(None, ["--set" if given else where, dotted]))


def _within(dotted: str, section: str) -> bool:
    return (dotted + ".").startswith(section + ".")


def _path(location: Location, document: Any) -> Location:
    """``location`` restricted to keys of the document: without the tags of unions, which are not in job files."""
    path: list[str | int] = []
    node = document
    for part in location:
        if isinstance(node, dict) and part in node or isinstance(node, list) and part in range(len(node)):
            node = node[part]
            path.append(part)
    return tuple(path)


def _problem_and_remedy(detail: dict, schema: dict) -> tuple[Location, str, str]:
    """(path below the error's own, problem, remedy)."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _UNKNOWN_KEY:
        return (), "is an unknown key", _suggest_key(detail["loc"], schema)
    if kind in _MISSING_KEY:
        help_line = resolve(schema, at(schema, detail["loc"])).get("description", "").rstrip(".")
        return (), "is missing", f"give it: {help_line}" if help_line else "give it"
    if kind == "union_tag_invalid":
        return ((context["discriminator"].strip("'"),), f"'{context['tag']}' is unknown",
                "choose " + context["expected_tags"].replace("'", ""))
    if kind == "union_tag_not_found":
        tags = resolve(schema, at(schema, detail["loc"])).get("discriminator", {}).get("mapping", {})
        return (context["discriminator"].strip("'"),), "is missing", f"choose {', '.join(tags)}"
    if kind == "value_error":
        return _split_message(str(context["error"]))
    if kind == "string_pattern_mismatch":
        return (), f"{shortened(detail['input'])} does not fit", \
            "use small letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit"
    if kind in ("model_type", "dataclass_type", "dict_type"):
        keys = ", ".join(resolve(schema, at(schema, detail["loc"])).get("properties", {}))
        return (), f"{shortened(detail['input'])} does not fit", f"give a section of keys{': ' if keys else ''}{keys}"
    works = re.sub(r"^\w+ should ", "it must ", detail["msg"]).split(", unable to parse")[0]
    if kind == "string_type" and not isinstance(detail["input"], dict | list):
        works += ": put it in quotes"
    return (), f"{shortened(detail['input'])} does not fit", works


def _split_message(message: str) -> tuple[Location, str, str]:
    """Split the ``path: problem; remedy`` of our own validators."""
    match = re.match(r"^([a-z_][\w]*(?:\.[\w-]+)*): (.*)$", message, re.DOTALL)
    path, message = (tuple(match[1].split(".")), match[2]) if match else ((), message)
    message = message.replace("Value error, ", "")
    problem, _, remedy = message.partition("; ")
    return path, problem, remedy


def _suggest_key(location: Location, schema: dict) -> str:
    """Suggest the key that was probably meant, or list all keys."""
    keys = list(resolve(schema, at(schema, location[:-1])).get("properties", {}))
    close = difflib.get_close_matches(str(location[-1]), keys, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"keys here are {', '.join(keys)}" if keys else "remove it"


def resolve(schema: dict, node: dict) -> dict:
    """``node`` with its reference resolved, and its "or null" and "or a word", which stand for a section."""
    while True:
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            node = schema["$defs"][node["$ref"].rpartition("/")[2]] | rest
            continue
        options = [option for option in node.get("anyOf", []) if option.get("type") not in ("null", "string")]
        if len(options) != 1:
            return node
        node = options[0] | {key: value for key, value in node.items() if key != "anyOf"}


def at(schema: dict, location: Location) -> dict:
    """The part of a JSON Schema that a pydantic location (union tags included) points to; {} if none."""
    node = schema
    for part in location:
        node = resolve(schema, node)
        tags = node.get("discriminator", {}).get("mapping", {})
        if part in tags:
            node = {"$ref": tags[part]}
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        elif isinstance(part, int) and "items" in node:
            node = node["items"]
        elif isinstance(node.get("additionalProperties"), dict):
            node = node["additionalProperties"]
        else:
            options = (resolve(schema, option) for option in node.get("anyOf", []))
            node = next((option for option in options if option.get("title") == part), {})
    return node
