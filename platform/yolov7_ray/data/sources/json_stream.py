"""A large JSON object read entry by entry, in memory of a few of them: annotation files reach half a gigabyte."""

import json
from collections.abc import Iterator
from typing import Any

_decode = json.JSONDecoder().raw_decode
_SPACE = json.decoder.WHITESPACE
_UNDECIDED = 2
"""A number may go on after the last whole one by as much, as in 1e+."""


class NotJson(ValueError):
    """What a text holds where it is not JSON, and at which character."""


class JsonObject:
    """The members of the object that a text holds, in their order; NotJson where the text is something else.

    The value of every key that `keys` gives must be taken, with `entries` or with `value`, before the next key.
    """

    def __init__(self, pieces: Iterator[str]):
        self._pieces = pieces
        self._window, self._at, self._passed = "", 0, 0

    def keys(self) -> Iterator[str]:
        """The keys; none where the text is JSON, but no object."""
        if self._next_character() == "{":
            yield from self._members()
        else:
            self.value()
        if self._next_character():
            raise self._error("Extra data")

    def _members(self) -> Iterator[str]:
        self._expect("{")
        if self._next_character() == "}":
            self._at += 1
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
        """Whether the value at hand is a list, whose `entries` can be taken."""
        return self._next_character() == "["

    def entries(self) -> Iterator[Any]:
        """The entries of the list at hand, parsed one at a time."""
        self._expect("[")
        if self._next_character() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self._expect(",", "]") == "]":
                return

    def value(self) -> Any:
        """The value at hand, parsed as a whole."""
        self._next_character()
        while True:
            try:
                value, end = _decode(self._window, self._at)
                fault = None
            except json.JSONDecodeError as error:
                end, fault = error.pos, error.msg
            if fault is None and end + _UNDECIDED < len(self._window):
                break
            if not self._read_on():
                break
        self._at = end
        if fault:
            raise self._error(fault)
        return value

    def _expect(self, *characters: str) -> str:
        found = self._next_character()
        if found not in characters or not found:
            raise self._error(f"Expecting {' or '.join(map(repr, characters))}")
        self._at += 1
        return found

    def _next_character(self) -> str:
        """What comes after white space, not taken yet; empty at the end."""
        while True:
            self._at = _SPACE.match(self._window, self._at).end()
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._read_on():
                return ""

    def _read_on(self) -> bool:
        """Forget what is taken and double what is not; False, and nothing changed, at the end of the text."""
        pieces = [self._window[self._at:]]
        wanted = missing = max(len(pieces[0]), 1)
        for piece in self._pieces:
            pieces.append(piece)
            missing -= len(piece)
            if missing <= 0:
                break
        if missing == wanted:
            return False
        self._passed += self._at
        self._window, self._at = "".join(pieces), 0
        return True

    def _error(self, problem: str) -> NotJson:
        return NotJson(f"{problem}: char {self._passed + self._at}")
