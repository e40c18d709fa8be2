"""Frozen dataclasses from parsed JSON: lists become tuples, every type is checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """Turn plain data into `kind`: a dataclass, tuple, Literal, optional or scalar type.

    From a union of dataclasses (X | Y), the one whose field `kind: Literal[...]` matches the data is chosen.
    `where` is the path shown in errors. ValueError if the data does not fit, also for unknown fields.
    """
    if dataclasses.is_dataclass(kind):
        return _dataclass_from_plain(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if value is None and types.NoneType in arguments:
            return None
        return from_plain(_union_member(arguments, value, where), value, where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where}: {value!r} is unknown; choose {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            return tuple(from_plain(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{where}: {value!r} does not fit; give {kind}")


def _union_member(union: tuple[Any, ...], value: Any, where: str) -> Any:
    """Return the union member that matches the value."""
    members = [member for member in union if member is not types.NoneType]
    if len(members) == 1:
        return members[0]
    by_kind = {typing.get_args(typing.get_type_hints(member)["kind"])[0]: member for member in members}
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in by_kind:
        raise ValueError(f"{where}: {value!r} does not fit; give a mapping whose kind is one of {', '.join(by_kind)}")
    return by_kind[kind]


def _dataclass_from_plain(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {value!r} does not fit; give a mapping of {kind.__name__}'s fields")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    missing = sorted(
        f.name for f in dataclasses.fields(kind) if f.name not in value and f.default is dataclasses.MISSING
    )
    if unknown or missing:
        raise ValueError(
            f"{where}: unknown fields {unknown}, missing fields {missing}; {kind.__name__} has {', '.join(hints)}"
        )
    return kind(**{name: from_plain(hints[name], item, f"{where}.{name}") for name, item in value.items()})
