"""Streaming reader of a large JSON object, a few entries in memory at a time: files reach half a gigabyte."""

import json
import re
from collections.abc import Iterator
from typing import Any

_decode = json.JSONDecoder().raw_decode
_SPACE = json.decoder.WHITESPACE
_LOOKAHEAD = 2
"""Characters by which a number may continue after its last complete prefix, as in 1e+."""


_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(?:\s*:\s*(\S))?|[{}\[\]]', re.DOTALL)


class NotJson(ValueError):
    """The text is not JSON; the message says why and at which character."""


class JsonObject:
    """The members of the JSON object in a text, in order; NotJson if the text is something else.

    The value of every key that `keys` gives must be taken, with `entries` or with `value`, before the next key.
    """

    def __init__(self, chunks: Iterator[str]):
        self._chunks = chunks
        self._buffer, self._position, self._consumed = "", 0, 0

    def keys(self) -> Iterator[str]:
        """The keys; none if the text is JSON but not an object."""
        if self._next_character() == "{":
            yield from self._members()
        else:
            self.value()
        if self._next_character():
            raise self._error("Extra data")

    def _members(self) -> Iterator[str]:
        self._expect("{")
        if self._next_character() == "}":
            self._position += 1
            return
        while True:
            if self._next_character() != '"':
                raise self._error("Expecting property name enclosed in double quotes")
            key = self.value()
            self._expect(":")
            yield key
            if self._expect(",", "}") == "}":
                return

    def is_list(self) -> bool:
        """Whether the current value is a list, so that `entries` can be called."""
        return self._next_character() == "["

    def entries(self) -> Iterator[Any]:
        """The entries of the current list, parsed one at a time."""
        self._expect("[")
        if self._next_character() == "]":
            self._position += 1
            return
        while True:
            yield self.value()
            if self._expect(",", "]") == "]":
                return

    def value(self) -> Any:
        """The current value, parsed completely."""
        self._next_character()
        while True:
            try:
                value, end = _decode(self._buffer, self._position)
                fault = None
            except json.JSONDecodeError as error:
                end, fault = error.pos, error.msg
            if fault is None and end + _LOOKAHEAD < len(self._buffer):
                break
            if not self._read_more():
                break
        self._position = end
        if fault:
            raise self._error(fault)
        return value

    def _expect(self, *characters: str) -> str:
        found = self._next_character()
        if found not in characters or not found:
            raise self._error(f"Expecting {' or '.join(map(repr, characters))}")
        self._position += 1
        return found

    def _next_character(self) -> str:
        """The next character after white space, not consumed; empty at the end."""
        while True:
            self._position = _SPACE.match(self._buffer, self._position).end()
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._read_more():
                return ""

    def _read_more(self) -> bool:
        """Drop consumed text and double the rest; False, with nothing changed, at the end of the text."""
        chunks = [self._buffer[self._position:]]
        wanted = missing = max(len(chunks[0]), 1)
        for chunk in self._chunks:
            chunks.append(chunk)
            missing -= len(chunk)
            if missing <= 0:
                break
        if missing == wanted:
            return False
        self._consumed += self._position
        self._buffer, self._position = "".join(chunks), 0
        return True

    def _error(self, problem: str) -> NotJson:
        return NotJson(f"{problem}: char {self._consumed + self._position}")


def members(text: str) -> dict[str, str]:
    """Key -> first character of its value, of the object that a text begins with; of a list of objects, of its first.

    The text may be cut: the keys are those in it. Empty where it begins with something else.
    """
    if text.lstrip("\ufeff \t\r\n[")[:1] != "{":
        return {}
    found: dict[str, str] = {}
    inside = 0
    position = text.index("{")
    while match := _TOKEN.search(text, position):
        position = match.end()
        if match[1] is None:
            inside += 1 if match[0] in "{[" else -1
            if not inside:
                break
        elif match[2]:
            position -= 1  # the value may be a text or begin another object
            if inside == 1:
                found[json.loads(match[1], strict=False)] = match[2]
    return found
