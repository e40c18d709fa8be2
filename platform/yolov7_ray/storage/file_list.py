"""The files of a directory in columns: their names and marks as bytes, about 45 bytes more for each.

A list of `FileInfo` takes four times as much: with ten million files that is the difference between 1 and 4 GB.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .disk import FileInfo, Skipped

SORTED_HERE = 1 << 14
"""Lists up to this length are sorted by Python: importing pyarrow takes longer."""

SAMPLE_EVERY = 32
"""One of so many paths is kept as an object, where a search begins."""


class FileColumns(Sequence[FileInfo]):
    """Files in the order in which they were appended."""

    __slots__ = ("_marks", "_mark_ends", "_paths", "_path_ends", "_sizes")

    def __init__(self, files: Iterable[FileInfo] = ()):
        self._paths, self._path_ends = bytearray(), array("q", [0])
        self._marks, self._mark_ends = bytearray(), array("q", [0])
        self._sizes = array("q")
        for info in files:
            self.append(info)

    def append(self, info: FileInfo) -> None:
        """Add a file at the end."""
        self._paths += info.path.encode("utf-8", "surrogatepass")
        self._path_ends.append(len(self._paths))
        self._marks += info.mark.encode()
        self._mark_ends.append(len(self._marks))
        self._sizes.append(info.num_bytes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int | slice) -> "FileInfo | FileColumns":
        if isinstance(index, slice):
            return self._cut(*index.indices(len(self))[:2])
        return self.info(range(len(self))[index])

    def _cut(self, first: int, last: int) -> "FileColumns":
        """Rows first to last, copied."""
        last, cut = max(first, last), FileColumns()
        for name in ("_paths", "_marks"):
            ends = getattr(self, name[:-1] + "_ends")[first:last + 1]
            setattr(cut, name, getattr(self, name)[ends[0]:ends[-1]])
            setattr(cut, name[:-1] + "_ends", array("q", (end - ends[0] for end in ends)))
        cut._sizes = self._sizes[first:last]
        return cut

    def take(self, rows: Iterable[int]) -> "FileColumns":
        """These rows, copied."""
        return FileColumns(map(self.info, rows))

    def path(self, row: int, skipped_bytes: int = 0) -> bytearray:
        """The path of a file in UTF-8, without its first bytes."""
        return self._paths[self._path_ends[row] + skipped_bytes:self._path_ends[row + 1]]

    def info(self, row: int, skipped_bytes: int = 0) -> FileInfo:
        """A file, its path without the first bytes."""
        mark = self._marks[self._mark_ends[row]:self._mark_ends[row + 1]]
        return FileInfo(self.path(row, skipped_bytes).decode("utf-8", "surrogatepass"), self._sizes[row], mark.decode())

    def order(self) -> Sequence[int]:
        """The rows in order of path."""
        if len(self) <= SORTED_HERE:
            return sorted(range(len(self)), key=self.path)
        import pyarrow as pa
        import pyarrow.compute

        paths = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), [
            None, pa.py_buffer(self._path_ends), pa.py_buffer(self._paths)])
        return memoryview(pa.compute.sort_indices(paths).buffers()[1]).cast("Q")[:len(self)]


class FileList(Sequence[FileInfo]):
    """Files in order of path. A part of a list shares its columns."""

    __slots__ = ("_columns", "_rows", "_samples", "_skipped_bytes", "skipped")

    def __init__(self, columns: FileColumns, rows: Sequence[int] | None = None, skipped_bytes: int = 0,
                 skipped: Sequence[Skipped] = ()):
        self._columns, self._skipped_bytes = columns, skipped_bytes
        self._rows = range(len(columns)) if rows is None else rows
        self._samples: list[bytes] = []
        self.skipped = skipped
        """What lies in the directory and was left out."""

    @classmethod
    def of(cls, files: Iterable[FileInfo], skipped: Sequence[Skipped] = ()) -> "FileList":
        """Files in any order; `skipped` may still grow while they come."""
        columns, is_sorted, last = FileColumns(), True, ""
        for info in files:
            columns.append(info)
            is_sorted, last = is_sorted and last <= info.path, info.path
        return cls(columns, None if is_sorted else columns.order(), skipped=skipped)

    @classmethod
    def named(cls, paths: Iterable[str]) -> "FileList":
        """Paths alone."""
        return cls.of(FileInfo(path, 0, "") for path in paths)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[FileInfo]:
        info, skipped_bytes = self._columns.info, self._skipped_bytes
        return (info(row, skipped_bytes) for row in self._rows)

    def __getitem__(self, index: int | slice) -> "FileInfo | FileList":
        if isinstance(index, slice):
            return FileList(self._columns, self._rows[index], self._skipped_bytes)
        return self._columns.info(self._rows[index], self._skipped_bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(FileInfo.__eq__, self, other))

    __hash__ = None

    def __repr__(self) -> str:
        return f"FileList({len(self):,} files)"

    def __reduce__(self) -> tuple:
        return FileList, (FileColumns(self),)  # of the columns its own rows alone

    def paths(self) -> Iterator[str]:
        """The paths in order."""
        path, skipped_bytes = self._columns.path, self._skipped_bytes
        return (path(row, skipped_bytes).decode("utf-8", "surrogatepass") for row in self._rows)

    def path_at(self, position: int) -> str:
        """The path at one position."""
        return self._key(position).decode("utf-8", "surrogatepass")

    def position(self, path: str) -> int | None:
        """Where in the list the file with just this path is; None if there is none."""
        key = path.encode("utf-8", "surrogatepass")
        position = self._position(key)
        return position if position < len(self) and self._key(position) == key else None

    def find(self, path: str) -> FileInfo | None:
        """The file with just this path."""
        position = self.position(path)
        return None if position is None else self[position]

    def below(self, directory: str) -> "FileList":
        """The files below a directory, by their path in it."""
        prefix = directory.strip("/").encode("utf-8", "surrogatepass")
        if not prefix:
            return self
        first, last = self._position(prefix + b"/"), self._position(prefix + b"0")  # "0" follows "/"
        inside = [skip._replace(path=skip.path[len(directory.strip("/")) + 1:]) for skip in self.skipped
                  if skip.path.startswith(directory.strip("/") + "/")]
        return FileList(self._columns, self._rows[first:last], self._skipped_bytes + len(prefix) + 1, inside)

    def where(self, test: Callable[[str], bool]) -> "FileList":
        """The files whose path passes a test."""
        rows = array("Q", (row for row, path in zip(self._rows, self.paths()) if test(path)))
        return FileList(self._columns, memoryview(rows), self._skipped_bytes, self.skipped)

    @property
    def by_path(self) -> "FileMap":
        """The same as a mapping."""
        return FileMap(self)

    def _key(self, position: int) -> bytearray:
        return self._columns.path(self._rows[position], self._skipped_bytes)

    def _position(self, key: bytes) -> int:
        """Position of the first path that does not come before `key`."""
        if not self._samples:
            self._samples = [bytes(self._key(position)) for position in range(0, len(self), SAMPLE_EVERY)]
        last = min(bisect_left(self._samples, key) * SAMPLE_EVERY, len(self))
        return bisect_left(range(len(self)), key, max(last - SAMPLE_EVERY, 0), last, key=self._key)


@dataclass(frozen=True, slots=True, eq=False)
class FileMap(Mapping[str, FileInfo]):
    """Path -> file, in order of path: a view of a list."""

    files: FileList

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[str]:
        return self.files.paths()

    def __getitem__(self, path: str) -> FileInfo:
        found = self.files.find(path)
        if found is None:
            raise KeyError(path)
        return found

    def get(self, path: str, default: FileInfo | None = None) -> FileInfo | None:
        """The file, or the default."""
        return self.files.find(path) or default

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self.files.find(path) is not None

    def values(self) -> Iterable[FileInfo]:
        """The files: those of a list, not looked up one by one."""
        return self.files

    def items(self) -> Iterable[tuple[str, FileInfo]]:
        """Paths and files."""
        return ((info.path, info) for info in self.files)

    def where(self, test: Callable[[str], bool]) -> "FileMap":
        """The files whose path passes a test."""
        return FileMap(self.files.where(test))

    def below(self, directory: str) -> "FileMap":
        """The files below a directory, by their path in it."""
        return FileMap(self.files.below(directory))
