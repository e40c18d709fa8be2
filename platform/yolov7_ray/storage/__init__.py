"""Storage by URI: one API for local paths and ``s3://bucket/key``; raw data may lie in other places too.

Writes are atomic: locally a temporary file that is renamed, in S3 one PUT. Two writers never both win a `create` or
a `compare_and_swap`. Every failure is a `StorageError` with a remedy, after a bounded time (that of `retry` for
each request). Names that start with a dot are working files, which listings leave out.
"""

import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import AlreadyExists, Corrupt, JobError, NotFound, StorageError
from . import activity, disk
from .disk import DiskFull, FileInfo, Skipped, digest, write_at, write_failure
from .location import ARCHIVES, absolute, is_remote, is_shared, join, plain, scheme_of, shown
from .store import Store
from .stream import Ranges

if TYPE_CHECKING:  # importing pyarrow takes a tenth of a second
    import pyarrow.fs

    from .file_list import FileList

__all__ = ["AlreadyExists", "Corrupt", "DiskFull", "FileInfo", "NotFound", "Skipped", "StorageError", "absolute", "digest",
           "is_shared", "join", "plain", "shown", "write_failure"]  # and below

PATIENCE = "YOLOV7_RAY_STORAGE_PATIENCE_S"
"""Environment variable with another retry time than that of `retry`, for a job whose work would be lost."""
RANGE_BYTES = 8 << 20
PARALLEL_TRANSFERS = 8
_known_lists: ContextVar["dict[str, FileList] | None"] = ContextVar("known_lists", default=None)
FETCH_ATTEMPTS = 3
"""Fetches of the same bytes before a wrong digest counts as corruption of the stored object."""


def _s3(uri: str) -> Store:
    from .s3 import S3  # importing boto3 takes a tenth of a second

    return S3.of(uri)


def _archive(uri: str) -> Store:
    from .archive import Archive

    return Archive(uri)


def _remote(uri: str) -> Store:
    from .remote import Remote

    return Remote(uri)


SCHEMES: dict[str, Callable[[str], Store]] = {"s3": _s3}
"""Scheme of a URI -> its store; a URI without a scheme is a local path. A new scheme is one line here."""
READ_ONLY: dict[str, Callable[[str], Store]] = dict.fromkeys(ARCHIVES, _archive)
"""The same for places of raw data alone; all other schemes are fsspec's."""


def is_readable(uri: str) -> bool:
    """Whether raw data may lie at `uri`: its scheme is known here or to fsspec."""
    scheme = scheme_of(plain(uri))
    if not scheme or scheme in SCHEMES or scheme in READ_ONLY:
        return True
    from fsspec.registry import known_implementations

    return scheme in known_implementations


def _store(uri: str) -> Store:
    if not is_remote(uri):
        return disk.Disk(absolute(uri))
    return (SCHEMES | READ_ONLY).get(scheme_of(uri), _remote)(uri)


def filesystem(uri: str) -> "tuple[pyarrow.fs.FileSystem, str]":
    """The filesystem of pyarrow (and so of Ray) for `uri`, and the path in it; AWS environment variables apply."""
    return _store(uri).arrow()


def ray_storage(uri: str) -> "tuple[str, pyarrow.fs.FileSystem | None]":
    """Arguments of Ray's ``RunConfig(storage_path=…, storage_filesystem=…)`` for `uri`."""
    if not is_remote(uri):
        return absolute(uri), None
    arrow, path = filesystem(uri)
    return path, arrow


def check_access(uri: str, write: bool = False) -> None:
    """Raise StorageError within about 15 s if `uri` cannot be reached; it need not exist yet."""
    _store(uri).check_access(write)


# --- small files --------------------------------------------------------------------------------------


def read_bytes(uri: str, sha256: str | None = None) -> bytes:
    """The whole content; NotFound if there is none.

    Corrupt if it never has the digest `sha256`, or the one recorded in S3 when it was written.
    """
    for _ in range(FETCH_ATTEMPTS):
        data = _store(uri).read()
        if sha256 is None or digest(data) == sha256:
            return data
    raise _corrupt(uri, f"its sha256 is {digest(data)}, not {sha256}")


def read_range(uri: str, start: int, stop: int) -> bytes:
    """Bytes start to stop; their number is checked, their content needs a digest."""
    return _store(uri).read_range(start, stop) if stop > start else b""


def size(uri: str) -> int:
    """Bytes of a file; NotFound if there is none."""
    return _store(uri).size_and_digest()[0]


def opened(uri: str) -> BinaryIO:
    """The content as a stream that takes little memory; Corrupt at its end if it is damaged."""
    return _store(uri).open()


def in_ranges(uri: str, num_bytes: int, piece_bytes: int) -> BinaryIO:
    """The content as a file to seek in, of which no more is read than asked for, or `piece_bytes` at a time."""
    if not is_remote(uri):
        return _store(uri).open()
    return io.BufferedReader(Ranges(num_bytes, _store(uri).read_range, piece_bytes=piece_bytes))


def read_with_etag(uri: str) -> tuple[bytes, str]:
    """The content and its version, for `compare_and_swap`."""
    return _store(uri).read_with_etag()


def write_bytes(uri: str, data: bytes) -> None:
    """Write or replace, atomically."""
    _store(uri).write(data)


def read_json(uri: str) -> Any:
    """The parsed content; Corrupt if it is not JSON."""
    data = read_bytes(uri)
    try:
        return json.loads(data)
    except ValueError as error:
        raise _corrupt(uri, f"it is not JSON ({error})") from None


def write_json(uri: str, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(uri, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")


def create(uri: str, data: bytes) -> None:
    """Write only if nothing exists; of racing writers one wins, the others get AlreadyExists.

    `data` should be unique to the writer (include its author): if the reply to a write is lost, the writer learns
    that it won by reading back the same bytes.
    """
    _store(uri).write_if(data, None)


def compare_and_swap(uri: str, data: bytes, expected_etag: str | None) -> str:
    """Replace only the version `expected_etag` (None: nothing) and return the new version's etag.

    AlreadyExists if another writer was faster: read again, decide again.
    """
    return _store(uri).write_if(data, expected_etag)


# --- trees ----------------------------------------------------------------------------------------------


def exists(uri: str) -> bool:
    """Whether there is a file, or a directory that holds one."""
    return _store(uri).exists()


def list_files(uri: str) -> "FileList":
    """All files below the directory `uri`, sorted by relative path; empty where there is none."""
    known = _known_lists.get()
    if known is None:
        return _list(uri)
    uri = absolute(uri)
    for root, files in known.items():
        below = uri.removeprefix(root + "/") if uri != root else ""
        if below != uri and not any(part.startswith(".") for part in below.split("/")):
            return files.below(below)
    known[uri] = _list(uri)
    return known[uri]


def _list(uri: str) -> "FileList":
    from .file_list import FileList

    skipped: list[Skipped] = []
    return FileList.of(_store(uri).files(skipped), skipped)


@contextmanager
def listed_once() -> Iterator[dict[str, "FileList"]]:
    """Within the block, and the blocks in it, `list_files` asks for a directory and all below it once.

    Yields the lists by the URIs that were asked for.
    """
    known = _known_lists.get()
    token = _known_lists.set({} if known is None else known)
    try:
        yield _known_lists.get()
    finally:
        _known_lists.reset(token)


def delete(uri: str) -> None:
    """Remove the file or the directory tree; it is no error if there is nothing."""
    _store(uri).delete()


# --- large files ----------------------------------------------------------------------------------------


def upload(local_path: str | os.PathLike, uri: str) -> None:
    """Copy a local file to `uri`, atomically."""
    _store(uri).upload(Path(local_path))


def download(uri: str, local_path: str | os.PathLike, sha256: str | None = None,
             num_bytes: int | None = None) -> None:
    """Copy `uri` to a local file, atomically, in parallel ranges.

    Content of another size or digest (without `sha256`: the one recorded in S3 when it was written) is fetched
    again; Corrupt if it stays wrong.
    """
    target = Path(local_path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        for _ in range(FETCH_ATTEMPTS):
            fault = _fetch(uri, partial, sha256, num_bytes)
            if fault is None:
                os.replace(partial, target)
                return
        raise _corrupt(uri, fault)
    except OSError as error:
        raise disk.explained(error, str(target)) from error
    finally:
        partial.unlink(missing_ok=True)


def _fetch(uri: str, partial: Path, sha256: str | None, num_bytes: int | None) -> str | None:
    """Fetch once; returns the problem with the result, or None."""
    store = _store(uri)
    size, recorded = store.size_and_digest()
    sha256 = sha256 or recorded
    if num_bytes is not None and size != num_bytes:
        return f"it has {size} bytes, not {num_bytes}"
    with open(partial, "wb") as file, ThreadPoolExecutor(PARALLEL_TRANSFERS) as pool:
        def fetch_range(start: int) -> None:
            write_at(file.fileno(), store.read_range(start, min(start + RANGE_BYTES, size)), start)

        list(pool.map(fetch_range, range(0, size, RANGE_BYTES)))
    actual = None if sha256 is None else digest(partial)
    return None if actual == sha256 else f"its sha256 is {actual}, not {sha256}"


def verify(uri: str, sha256: str) -> None:
    """Corrupt unless the local file `uri` has this digest; NotFound if there is none."""
    try:
        actual = digest(absolute(uri))
    except OSError as error:
        raise disk.explained(error, uri) from error
    if actual != sha256:
        raise _corrupt(uri, f"its sha256 is {actual}, not {sha256}")


def download_directory(uri: str, local_dir: str | os.PathLike) -> None:
    """Copy all files below `uri`; NotFound if there are none."""
    infos = list_files(uri)
    if not infos:
        raise NotFound(uri, "there are no files here", "check the path")
    for info in infos:
        download(join(uri, info.path), Path(local_dir) / info.path, num_bytes=info.num_bytes)


def upload_directory(local_dir: str | os.PathLike, uri: str) -> None:
    """Copy all files below `local_dir`, several at a time; each is atomic, the directory is not."""
    infos = list_files(str(local_dir))
    with ThreadPoolExecutor(PARALLEL_TRANSFERS) as pool:
        list(pool.map(lambda info: upload(Path(local_dir) / info.path, join(uri, info.path)), infos))


@contextmanager
def staging(uri: str) -> Iterator[str]:
    """An empty directory for files to `publish` below `uri`, removed afterwards; one at a time for each `uri`.

    Where `uri` is local it lies in it, hidden: the disk that will hold the files is the only one that needs the space,
    and what a killed process left there is replaced. Else it is in the temporary directory.
    """
    if is_remote(uri):
        with tempfile.TemporaryDirectory(prefix="yolov7-staging-") as directory:
            yield directory
        return
    directory = os.path.join(absolute(uri), ".staging")
    try:
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        with activity.operation(directory):
            yield directory
    except OSError as error:
        raise disk.explained(error, directory) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish(staged_dir: str, uri: str) -> None:
    """Move all files of a directory made by `staging` below `uri`; each is atomic, the directory is not."""
    if is_remote(uri):
        return upload_directory(staged_dir, uri)
    for info in list_files(staged_dir):
        disk.Disk(join(absolute(uri), info.path)).adopt(Path(staged_dir, info.path))


@contextmanager
def staged(directory: str | None = None) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary local file, open for writing and deleted afterwards; for content to `upload`."""
    root = Path(directory or os.environ.get("TMPDIR", "/tmp"))
    root.mkdir(parents=True, exist_ok=True)
    path = root / f".yolov7-{uuid.uuid4().hex}.part"
    try:
        with open(path, "wb") as file:
            yield file, path
    except OSError as error:
        raise disk.explained(error, str(path)) from error
    finally:
        path.unlink(missing_ok=True)


def _corrupt(uri: str, problem: str) -> JobError:
    return Corrupt(uri, f"is corrupt: {problem}", "write it again from its source, or restore it from a backup")
