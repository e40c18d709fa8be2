r"""Names of files as annotations write them -> files of a folder.

A name is found as it stands, else by what people and tools do to names: `\` for `/`, a leading `./`, a missing or
repeated leading directory, another machine's root, URL encoding, composed against decomposed accents, another case.
Every name found otherwise than written is counted, by what had to be bent.
"""

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from ...errors import JobError
from ...storage.disk import FileInfo
from ...storage.file_list import FileList, FileMap

_DRIVE = re.compile(r"^[A-Za-z]:[/\\]|^[a-z0-9+.-]+://[^/]*/|^[/\\]")
"""What an absolute name begins with: a drive, a URL's host, or a slash."""
_SEPARATOR = re.compile(r"\\|%2[fF]|%5[cC]")
_QUERY = re.compile(r"^.*[?&]d=|[?#].*$")
_GRADES = ("another directory", "URL encoding", "another composition of accents", "another case", "no extension")
ABSOLUTE_OVERLAP = 2
"""Trailing parts of an absolute name that must agree with a file's: its root lies on another machine."""

PIECE = 1 << 20


class Resolver:
    """Index of the files of one folder, built at the first name that is not found as written: 8 bytes a file."""

    def __init__(self, files: Mapping[str, FileInfo], where: str, suffixes: tuple[str, ...]):
        self.files, self.where, self.suffixes = files, where, suffixes
        self.bent: Counter[str] = Counter()
        """What had to be bent -> how many names."""
        self.examples: dict[str, str] = {}
        self._buckets: _Buckets | None = None

    def find(self, name: str) -> FileInfo | None:
        """The file that a name means, None if there is none; JobError if it means several alike."""
        if found := self.files.get(name):
            return found
        path, how = self._match(name)
        if path is None:
            return None
        self.bent[how] += 1
        self.examples.setdefault(how, f"{name!r} is {path}")
        return self.files[path]

    def _match(self, name: str) -> tuple[str | None, str]:
        plain, is_absolute = plain_parts(name)
        if plain and "/".join(plain) in self.files:
            return "/".join(plain), _bent(name, plain, is_absolute, plain)
        ranked: list[tuple[tuple, str]] = []
        for path in self._candidates(plain[-1] if plain else ""):
            rank = self._rank(plain, path.split("/"), is_absolute)
            if rank is not None:
                ranked.append((rank, path))
        if not ranked:
            return None, ""
        best = min(rank for rank, _ in ranked)
        found = sorted(path for rank, path in ranked if rank == best)
        if len(found) > 1:
            raise JobError(self.where, f"the name {name!r} may mean {found[0]} or {found[1]}",
                           "write the directory into the name, or set source.uri and source.splits closer to it")
        grade = max(best[1:3]) if best[1:3] > (0, 0) else 0
        return found[0], _GRADES[grade] if grade else _bent(name, plain, is_absolute, found[0].split("/"))

    def _candidates(self, base: str) -> Sequence[str]:
        """All files whose last part reads the same but for case, accents, URL encoding and a known extension."""
        if self._buckets is None:
            listed = self.files.files if isinstance(self.files, FileMap) else FileList.named(self.files)
            self._buckets = _Buckets(listed, self._key)
        key = self._key(base)
        return [path for path in self._buckets.of(key) if self._key(path.rpartition("/")[2]) == key]

    def _key(self, base: str) -> str:
        return self._split(_folded(base))[0]

    def _split(self, base: str) -> tuple[str, str]:
        if not base.lower().endswith(self.suffixes):
            return base, ""
        suffix = next(suffix for suffix in self.suffixes if base.lower().endswith(suffix))
        return base[:-len(suffix)], base[-len(suffix):]

    def _rank(self, name: list[str], path: list[str], is_absolute: bool) -> tuple | None:
        """How far a path is from a name, None if it is another file; smaller is closer."""
        (name_stem, name_suffix), (path_stem, path_suffix) = self._split(name[-1]), self._split(path[-1])
        suffix_grade = 0
        if name_suffix != path_suffix:
            if name_suffix and name_suffix.lower() != path_suffix.lower():
                return None
            suffix_grade = 3 if name_suffix else 4
        name_parts, path_parts = [*name[:-1], name_stem], [*path[:-1], path_stem]
        common, grade = 0, 0
        for one, other in zip(reversed(name_parts), reversed(path_parts)):
            step = _grade(one, other)
            if step is None:
                break
            common, grade = common + 1, max(grade, step)
        if common < min(len(name), len(path)) and not (is_absolute and common >= ABSOLUTE_OVERLAP):
            return None
        return (-common, grade, suffix_grade, len(path))


class _Buckets:
    """Files by the hash of their key, in as many buckets as there are files."""

    def __init__(self, files: FileList, key: Callable[[str], str]):
        self.files, count = files, max(len(files), 1)
        bucket = np.fromiter((hash(key(path.rpartition("/")[2])) % count for path in files.paths()), np.uint32,
                             len(files))
        self._order = np.argsort(bucket, kind="stable").astype(np.uint32)
        bucket = bucket[self._order]
        self._ends = np.empty(count, np.uint32)
        for first in range(0, count, PIECE):  # the places that NumPy finds take twice the room of those kept
            numbers = np.arange(first, min(first + PIECE, count), dtype=np.uint32)
            self._ends[first:first + PIECE] = np.searchsorted(bucket, numbers, "right")

    def of(self, key: str) -> list[str]:
        """The paths of one bucket."""
        bucket = hash(key) % len(self._ends)
        first, last = self._ends[bucket - 1] if bucket else 0, self._ends[bucket]
        return [self.files.path_at(position) for position in self._order[first:last].tolist()]


def plain_parts(name: str) -> tuple[list[str], bool]:
    r"""The parts of a name without root, `.`, `..`, `\` and a URL's query, and whether it was absolute."""
    match = _DRIVE.match(name)
    is_absolute = match is not None
    if is_absolute and ("://" in match[0] or "?d=" in name):
        name = _QUERY.sub("", name[match.end():])
    elif is_absolute:
        name = name[match.end():]
    parts = posixpath.normpath(_SEPARATOR.sub("/", name)).split("/")
    return [part for part in parts if part not in ("", ".", "..")], is_absolute


def _bent(name: str, plain: list[str], is_absolute: bool, path: list[str]) -> str:
    if is_absolute:
        return "another root"
    if plain != path:
        return "another directory"
    return "backslashes" if "\\" in name else "./ or //"


def _grade(one: str, other: str) -> int | None:
    """Index into `_GRADES` of how two parts differ, None if they are different names."""
    if one == other:
        return 0
    if _unquoted(one) == _unquoted(other):
        return 1
    composed, others = (unicodedata.normalize("NFC", _unquoted(part)) for part in (one, other))
    if composed == others:
        return 2
    return 3 if composed.casefold() == others.casefold() else None


def _folded(base: str) -> str:
    if base.isascii() and "%" not in base:
        return base.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", _unquoted(base)).casefold())


def _unquoted(part: str) -> str:
    """URL decoding; the text itself where its escapes are not UTF-8."""
    if "%" not in part:
        return part
    try:
        unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError:
        return part
    return unquote(part)
