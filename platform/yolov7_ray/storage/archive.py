"""Files in archives, read where they lie: a zip on any storage, a tar on a disk.

The table of contents is read once in each process. A file's mark tells where in the archive it lies, so that reading
it takes one range of the archive.
"""

import io
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ..errors import Corrupt, NotFound, StorageError
from .disk import FileInfo, Skipped
from .file_list import FileList
from .location import parts, scheme_of
from .read_only import ReadOnly
from .store import Store
from .stream import Chunks

PIECE_BYTES = 1 << 20
MAX_TABLES = 2
"""Tables of contents that a process keeps."""
_HEADER_BYTES, _DIRECTORY_BYTES, _END_BYTES = 30, 46, 22
"""Of a file in a zip, of its entry in the table, of the zip's end; names and more come on top."""
_UTF8, _ENCRYPTED = 0x800, 0x1

_tables: dict[str, FileList] = {}
_lock = threading.Lock()


class Archive(ReadOnly):
    """A file or a directory in an archive."""

    def __init__(self, uri: str):
        from . import _store

        self.uri, self.kind = uri, scheme_of(uri)
        self.archive, self.path = parts(uri)
        self.outer: Store = _store(self.archive)

    def check_access(self, write: bool) -> None:
        """Raise if the archive cannot be reached, or is to be written to."""
        if write:
            raise self._refused()
        self.outer.check_access(False)

    # --- its table of contents --------------------------------------------------------------------------

    def _table(self, anew: bool = False) -> FileList:
        with _lock:
            if anew or self.archive not in _tables:
                while len(_tables) >= MAX_TABLES:
                    _tables.pop(next(iter(_tables)))
                skipped: list[Skipped] = []
                _tables[self.archive] = FileList.of(self._entries(skipped), skipped)
            return _tables[self.archive]

    def _entries(self, skipped: list[Skipped]) -> Iterator[FileInfo]:
        entries = _zip_entries if self.kind == "zip" else _tar_entries
        if self.kind == "tar" and scheme_of(self.archive):
            raise StorageError(self.archive, "is a tar, which has no table of contents: every worker would read all of "
                                             "it", "unpack it there, or give a zip")
        if scheme_of(self.archive):
            self.outer.read_range(1, 2)  # StorageError from a web server that has no ranges
        try:
            with self.outer.open() as file:
                for name, info in entries(file, skipped):
                    names = name.replace("\\", "/").split("/")
                    names = [part for part in names if part not in ("", ".")]
                    if ".." in names or not names:
                        skipped.append(Skipped(name, "name outside of the archive", False))
                    elif not any(part.startswith(".") for part in names):
                        yield FileInfo("/".join(names), *info)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError) as error:
            raise StorageError(self.archive, f"is no {self.kind} archive that can be read ({error})",
                               "download it again, or unpack it and give the folder") from None

    def files(self, skipped: list[Skipped]) -> Iterable[FileInfo]:
        """Files below this directory, without hidden ones."""
        table = self._table(anew=True).below(self.path)
        skipped += table.skipped
        return table

    def exists(self) -> bool:
        """Whether there is a file, or a directory that holds one."""
        try:
            return self._table().find(self.path) is not None or len(self._table().below(self.path)) > 0
        except NotFound:
            return False

    def _info(self, anew: bool = False) -> FileInfo:
        found = self._table(anew).find(self.path)
        if found is None:
            raise NotFound(self.uri, "there is nothing here", "check the path")
        return found

    def size_and_digest(self) -> tuple[int, str | None]:
        """Bytes of the file."""
        return self._info().num_bytes, None

    # --- reading ----------------------------------------------------------------------------------------

    def read(self) -> bytes:
        """The whole content; Corrupt if it does not fit its checksum."""
        try:
            return b"".join(self._chunks(self._info()))
        except Corrupt:  # another archive may lie there now
            return b"".join(self._chunks(self._info(anew=True)))

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop; all before them are read too."""
        found = bytearray()
        for chunk in self._chunks(self._info()):
            found += chunk
            if len(found) >= stop:
                break
        return bytes(found[start:stop])

    def open(self) -> BinaryIO:
        """The content as a stream, verified at its end."""
        return io.BufferedReader(Chunks(self._chunks(self._info())))

    def _chunks(self, info: FileInfo) -> Iterator[bytes]:
        if self.kind == "tar":
            first = int(info.mark.partition(".")[0])
            for start in range(first, first + info.num_bytes, PIECE_BYTES):
                yield self.outer.read_range(start, min(start + PIECE_BYTES, first + info.num_bytes))
            return
        offset, packed_bytes, name_bytes, method, crc = map(int, info.mark.split("."))
        # beyond the file lie at least its entry in the table, which repeats its name, and the zip's end
        ahead = _HEADER_BYTES + 2 * name_bytes + _DIRECTORY_BYTES + _END_BYTES
        piece = self.outer.read_range(offset, offset + ahead + min(packed_bytes, PIECE_BYTES))
        if piece[:4] != b"PK\3\4":
            raise self._damaged("no file begins where its table of contents says")
        start = _HEADER_BYTES + int.from_bytes(piece[26:28], "little") + int.from_bytes(piece[28:30], "little")
        position, end = offset + len(piece), offset + start + packed_bytes
        piece = piece[start:start + packed_bytes]
        unpack = zlib.decompressobj(-zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED else None
        num_bytes, checksum = 0, 0
        while True:
            try:
                data = unpack.decompress(piece, info.num_bytes - num_bytes + 1) if unpack else piece
            except zlib.error as error:
                raise self._damaged(str(error)) from None
            num_bytes, checksum = num_bytes + len(data), zlib.crc32(data, checksum)
            if num_bytes > info.num_bytes:
                break
            yield data
            if position >= end:
                break
            piece = self.outer.read_range(max(position, offset + start), min(position + PIECE_BYTES, end))
            position = max(position, offset + start) + len(piece)
        if (num_bytes, checksum) != (info.num_bytes, crc):
            raise self._damaged("its checksum is another one")

    def _damaged(self, problem: str) -> Corrupt:
        return Corrupt(self.uri, f"is corrupt: {problem}", "download the archive again, or pack it again")


def _zip_entries(file: BinaryIO, skipped: list[Skipped]) -> Iterator[tuple[str, tuple[int, str]]]:
    """Names as written, and bytes and mark: where a file begins, its packed bytes, those of its name, method, CRC."""
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            raw = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
            if info.is_dir():
                continue
            if info.flag_bits & _ENCRYPTED:
                skipped.append(Skipped(info.filename, "encrypted", False))
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                skipped.append(Skipped(info.filename, f"packed by method {info.compress_type}, not deflate", False))
            else:
                mark = f"{info.header_offset}.{info.compress_size}.{len(raw)}.{info.compress_type}.{info.CRC}"
                yield _name(raw, info.filename), (info.file_size, mark)


def _name(raw: bytes, name: str) -> str:
    """The name, in UTF-8 where it is, as some programs write it without saying so."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return name


def _tar_entries(file: BinaryIO, skipped: list[Skipped]) -> Iterator[tuple[str, tuple[int, str]]]:
    """Names as written, and bytes and mark: where a file begins, and its time."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            archive.members = []  # it would keep them all
            if info.isreg():
                yield info.name, (info.size, f"{info.offset_data}.{int(info.mtime)}")
            elif not info.isdir():
                skipped.append(Skipped(info.name, "link in an archive", False))
