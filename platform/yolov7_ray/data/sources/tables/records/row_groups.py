"""Images in Parquet files: a process reads a row group's images once, and keeps the last few groups."""

import threading
from concurrent.futures import Future

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..... import storage
from .....errors import JobError
from ...item import Raw
from ...objects import Problem
from .packed import PackedItem

CACHE_BYTES = 256 << 20
"""Of row groups that a process keeps, beside the last two, which may be larger."""
_groups: dict[tuple, Future] = {}
_lock = threading.Lock()


class RowItem(PackedItem):
    """An image in a row of a Parquet file."""

    __slots__ = ()

    def fetch(self) -> Raw:
        """Take the image from its row group."""
        uri, mark, group, row = self.siblings.place(self.index)
        where = f"{uri} row group {group}"
        try:
            data = _images(uri, mark, group, self.siblings.column)[row].as_py()
        except (pa.ArrowException, OSError) as error:
            return self.raw(b"", Problem("row group that cannot be read", f"{where}: {error}", is_image=True))
        if data is None:
            return self.raw(b"", Problem("row without an image", f"{where} row {row}", is_image=True))
        return self.raw(data)


def parquet_file(where: str, num_bytes: int) -> pq.ParquetFile:
    """A file whose footer is read; JobError if it is no Parquet."""
    try:
        return pq.ParquetFile(pa.PythonFile(storage.in_ranges(where, num_bytes, 0), "r"), pre_buffer=True)
    except (pa.ArrowException, OSError) as error:
        raise JobError(where, f"is no Parquet file: {error}", "write it again, or take it away") from None


def _images(uri: str, mark: str, group: int, column: str) -> pa.ChunkedArray:
    """The images of a row group; threads that want the same one wait for the first."""
    key = (uri, mark, group, column)
    with _lock:
        future = _groups.pop(key, None)
        is_mine = future is None
        future = _groups[key] = future or Future()
        for old in list(_groups)[:-2]:
            if sum(map(_num_bytes, _groups.values())) > CACHE_BYTES:
                del _groups[old]
    if is_mine:
        try:
            future.set_result(_read(uri, group, column))
        except BaseException as error:
            with _lock:
                _groups.pop(key, None)
            future.set_exception(error)
    return future.result()


def _read(uri: str, group: int, column: str) -> pa.ChunkedArray:
    file = parquet_file(uri, storage.size(uri))
    name, _, member = column.partition(".")
    values = file.read_row_group(group, columns=[column])[name]
    return pc.struct_field(values, member) if member else values


def _num_bytes(future: Future) -> int:
    return future.result().nbytes if future.done() and not future.exception() else 0
