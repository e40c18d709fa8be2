"""The bearer tokens of an endpoint: names, scopes and digests; those of a file change while the endpoint runs."""

import hmac
import threading
from collections.abc import Callable, Mapping

from pydantic import TypeAdapter, ValidationError

from ... import storage
from ...errors import Corrupt, StorageError
from ...jobs.spec import Name
from ..limits import RequestError
from .spec import Scope, Token, sha256_of

LOOK_EVERY_S = 10.0
"""How often a gateway reads the file of tokens: so long a withdrawn token may go on working."""

FILE = TypeAdapter(dict[Name, Token])


class Tokens:
    """Tokens by name: those of the job, and those of a JSON file ``{NAME: {"sha256": …, "scopes": […]}}``.

    A token is rotated by a second entry in the file, and by taking the first away once nobody uses it any more.
    """

    def __init__(self, given: Mapping[str, Token] = {}, uri: str | None = None) -> None:
        self._given, self._uri, self._told = dict(given), uri, ""
        self._known = self._given

    @property
    def are_required(self) -> bool:
        """Whether requests need one: also while the file names none."""
        return bool(self._given) or self._uri is not None

    def check(self, token: str | None, scope: Scope) -> str:
        """The name of a token; RequestError 401 if it is unknown, 403 if it does not open `scope`.

        Digests are compared in constant time, and all of them.
        """
        is_open = scope == "metrics" and not any(scope in entry.scopes for entry in self._known.values())
        if is_open or not self.are_required:
            return ""
        digest, name = sha256_of(token or ""), ""
        for known, entry in self._known.items():
            if hmac.compare_digest(digest, entry.sha256):
                name = known
        if not name:
            raise RequestError(401, "authorization", f"bearer token is {'wrong' if token else 'missing'}",
                               "send the header `Authorization: Bearer TOKEN`")
        scopes = self._known[name].scopes
        if scope not in scopes and "admin" not in scopes:
            raise RequestError(403, "authorization", f"token '{name}' has the scopes {', '.join(scopes)}",
                               f"use one with the scope {scope}")
        return name

    def read(self) -> None:
        """Take the tokens that the file holds now; StorageError if it cannot be read, Corrupt if it does not fit."""
        if self._uri is None:
            return
        try:
            found = FILE.validate_json(storage.read_bytes(self._uri))
        except ValidationError as error:
            first = error.errors()[0]
            raise Corrupt(self._uri, f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
                          'write {"NAME": {"sha256": "…", "scopes": ["detect"]}}') from error
        if clear := [name for name, token in found.items() if token.env is not None]:
            raise Corrupt(self._uri, f"'{clear[0]}' names a variable", "write the token's sha256")
        self._known = self._given | found

    def look(self) -> None:
        """`read`; what cannot be read changes nothing, and is told once."""
        try:
            self.read()
            self._told = ""
        except StorageError as error:
            if str(error) != self._told:
                self._told = str(error)
                print(f"serve: tokens stay as they were: {error}", flush=True)

    def watch(self) -> Callable[[], None]:
        """Read the file now and every few seconds, in a thread; call what is returned to end that."""
        ended = threading.Event()

        def look_until_then() -> None:
            self.look()
            while not ended.wait(LOOK_EVERY_S):
                self.look()

        if self._uri is not None:
            threading.Thread(target=look_until_then, name="tokens", daemon=True).start()
        return ended.set
