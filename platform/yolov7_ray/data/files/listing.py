"""One listing of a folder, and the first bytes of the few files that are looked into."""

from functools import cached_property

from ... import storage
from ...storage.disk import FileInfo
from .text import NotText, decode, decode_xml

HEAD_BYTES = 1 << 16
MAX_PROBES = 12
"""Files of one kind that are looked into."""


class Listing:
    """The files below a URI; each is read at most once."""

    def __init__(self, uri: str):
        self.uri = uri
        self._starts: dict[str, str] = {}

    @cached_property
    def files(self) -> dict[str, FileInfo]:
        """Path relative to the URI -> file."""
        return {info.path: info for info in storage.list_files(self.uri)}

    def probes(self, *suffixes: str) -> list[str]:
        """A few files with one of these endings, in lower case: those nearest to the root."""
        found = (path for path in self.files if path.lower().endswith(suffixes))
        return sorted(found, key=lambda path: path.count("/"))[:MAX_PROBES]

    def start(self, path: str) -> str:
        """The beginning of a file as text, empty where it is none; a character cut at its end is left out."""
        if path not in self._starts:
            self._starts[path] = self._read_start(path)
        return self._starts[path]

    def _read_start(self, path: str) -> str:
        head = self._head(storage.join(self.uri, path))
        for cut in range(4):
            try:
                return (decode_xml if path.lower().endswith(".xml") else decode)(head[:len(head) - cut], path)
            except NotText:
                continue
        return ""

    @staticmethod
    def _head(where: str) -> bytes:
        if storage.is_remote(where):
            return storage.read_bytes(where)[:HEAD_BYTES]
        with open(storage.absolute(where), "rb") as file:
            return file.read(HEAD_BYTES)
