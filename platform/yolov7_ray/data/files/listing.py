"""One listing of a folder, and the first bytes of the few files that are looked into."""

from functools import cached_property

from ... import storage
from ...storage.file_list import FileMap
from .text import NotText, decode, decode_xml

HEAD_BYTES = 1 << 16
MAX_PROBES = 12
"""Files of one kind that are looked into."""


class Listing:
    """The files below a URI; each is read at most once."""

    def __init__(self, uri: str):
        self.uri = uri
        self.undecodable: list[str] = []
        """Why beginnings of files that should be text are none."""
        self._starts: dict[str, str] = {}

    @cached_property
    def files(self) -> FileMap:
        """Path relative to the URI -> file."""
        return storage.list_files(self.uri).by_path

    def left_out(self) -> str:
        """What the listing left out, in words: empty, or with a semicolon before it."""
        skipped = self.files.files.skipped
        return f"; {len(skipped):,} left out, e.g. {skipped[0].path} ({skipped[0].reason})" if skipped else ""

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
        head = storage.read_range(storage.join(self.uri, path), 0, min(HEAD_BYTES, self.files[path].num_bytes))
        reason = ""
        for cut in range(4):
            try:
                return (decode_xml if path.lower().endswith(".xml") else decode)(head[:len(head) - cut], path)
            except NotText as error:
                reason = f"{path}: {error.problem}"
        self.undecodable.append(reason)
        return ""
