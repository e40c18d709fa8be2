"""The job of a resumed run against the one that it was started with, key by key."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pydantic

from ..errors import JobError
from .spec import Job, shortened

Document = dict[str, Any]
MAX_NAMED = 4
"""Changes in one message."""


@dataclass(frozen=True)
class Change:
    """A key whose value differs."""

    key: str
    """Dotted path."""
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {shortened(self.before)} -> {shortened(self.now)}"

    def within(self, keys: Iterable[str]) -> bool:
        """Whether it is one of these keys, or below one of them."""
        return any((self.key + ".").startswith(key + ".") for key in keys)


def changes(before: Document, now: Document) -> list[Change]:
    """Every key that differs, in the order of ``now``; a key that only one of them has is None in the other."""
    old, new = (dict(_leaves(document)) for document in (before, now))
    return [Change(key, old.get(key), new.get(key)) for key in {**new, **old} if old.get(key) != new.get(key)]


def resolved(spec: type[Job], earlier: Document) -> Document:
    """An earlier job's values, with today's defaults for keys that it does not know."""
    try:
        return spec.model_validate(earlier).model_dump(mode="json")
    except pydantic.ValidationError:  # of another version, with other keys or limits
        return earlier


def _leaves(document: Document, path: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def refuse(where: str, what: str, found: list[Change], remedy: str) -> None:
    """JobError that names the first of the changes, if there are any."""
    if found:
        named = ", ".join(f"{change.key} {shortened(change.before)} (the job says {shortened(change.now)})"
                          for change in found[:MAX_NAMED])
        more = f" and {len(found) - MAX_NAMED} keys more" if len(found) > MAX_NAMED else ""
        raise JobError(where, f"{what} {named}{more}", remedy)
