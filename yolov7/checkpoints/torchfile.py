"""Files of `torch.save` read as data: both of its formats, without torch's reader and without executing anything.

The zip format holds the structure as `NAME/data.pkl` and each storage as a stored file `NAME/data/KEY`;
the legacy one is a sequence of pickles followed by the storages. Tensors come out on the CPU, in the
file's precision; parameters as plain tensors; objects as `unpickle.Record`s.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
import zipfile
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .unpickle import Name, PickleReader

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAX_DIMENSIONS = 16
STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8,
        "Byte": torch.uint8, "Bool": torch.bool,
    }.items()
}  # fmt: skip
Storages = Callable[[str, torch.dtype, int], Tensor]
"""(key, dtype, elements) → the storage as a tensor of one dimension."""


def read_torch_file(path: str | os.PathLike) -> Any:
    """Return what `torch.save` wrote; ValueError, naming the file, if it is damaged or needs code to run."""
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(file)
            return _read_legacy(file)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise ValueError(f"{os.fspath(path)}: damaged file ({error})") from error
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


# --- the zip format ---


def _read_zip(file: BinaryIO) -> Any:
    file_bytes = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("a zip file without one data.pkl; give a file of torch.save")
        [root] = roots
        if root + "constants.pkl" in entries:
            raise ValueError("a TorchScript program; give the checkpoint that it was traced from")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("compressed entries, which torch.save does not write")
        if sum(entry.file_size for entry in entries.values()) > file_bytes:
            raise ValueError("damaged file: its entries claim more bytes than it has")
        if root + "byteorder" in entries and archive.read(root + "byteorder") != b"little":
            raise ValueError("written by a big-endian machine; save it again on a little-endian one")

        def storage(key: str, dtype: torch.dtype, num_elements: int) -> Tensor:
            entry = entries.get(f"{root}data/{key}")
            if entry is None or entry.file_size != num_elements * dtype.itemsize:
                arrived = "is missing" if entry is None else f"has {entry.file_size} bytes"
                raise ValueError(f"damaged file: storage {key[:50]!r} of {num_elements} {dtype} {arrived}")
            return _from_bytes(archive.read(entry), dtype)

        return _tensor_reader(storage).read(io.BytesIO(archive.read(root + "data.pkl")))


# --- the legacy format ---


def _read_legacy(file: BinaryIO) -> Any:
    if not os.fstat(file.fileno()).st_size:
        raise ValueError("an empty file; give a file of torch.save")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:  # reading past its end allocates nothing
        header_reader = PickleReader()
        try:
            is_legacy = header_reader.read(data) == LEGACY_MAGIC and header_reader.read(data) == LEGACY_PROTOCOL
        except ValueError as error:
            raise ValueError(f"no file of torch.save: {error}") from error
        if not is_legacy:
            raise ValueError("a pickle, but no file of torch.save")
        header_reader.read(data)  # byte order and sizes of C types of the writer, which torch never varied
        storages: dict[str, Tensor] = {}
        free_bytes = len(data)

        def storage(key: str, dtype: torch.dtype, num_elements: int) -> Tensor:
            nonlocal free_bytes
            free_bytes -= num_elements * dtype.itemsize
            if free_bytes < 0:
                raise ValueError("damaged file: its storages claim more bytes than it has")
            return storages.setdefault(key, torch.empty(num_elements, dtype=dtype))

        content = _tensor_reader(storage).read(data)
        for key in header_reader.read(data):
            _read_storage(storages.pop(key, None), data)
        if storages:
            raise ValueError(f"damaged file: {len(storages)} storages are missing")
        return content


def _read_storage(storage: Tensor | None, data: mmap.mmap) -> None:
    """Read one storage, preceded by its number of elements, into the tensor allocated for it."""
    [num_elements] = struct.unpack("<q", data.read(8))
    if storage is None or len(storage) != num_elements:
        raise ValueError("damaged file: a storage that no tensor names, or of another size")
    chunk = data.read(num_elements * storage.itemsize)
    if len(chunk) != num_elements * storage.itemsize:
        raise ValueError("damaged file: it ends in the middle of a storage")
    storage.copy_(_from_bytes(chunk, storage.dtype))


# --- tensors ---


def _tensor_reader(load_storage: Storages) -> PickleReader:
    """A pickle reader that builds tensors and loads each storage once, by `load_storage`."""
    storages: dict[str, Tensor] = {}

    def resolve_id(persistent_id: Any) -> Any:
        match persistent_id:
            case ("module", Name() as name, *_):  # the legacy format adds the source text of classes
                return name
            case ("storage", Name() as kind, str(key), str(), int(num_elements), *rest) if rest in ([], [None]):
                dtype = STORAGES.get(str(kind))
                if dtype is None or num_elements < 0:
                    raise ValueError(f"a storage of {num_elements} elements of the unknown kind {str(kind)[:100]!r}")
                if key not in storages:
                    storages[key] = load_storage(key, dtype, num_elements)
                if storages[key].dtype != dtype or len(storages[key]) != num_elements:
                    raise ValueError(f"damaged file: storage {key[:50]!r} is described in two ways")
                return storages[key]
        raise ValueError("a persistent id that is no storage of torch")

    return PickleReader(TENSOR_BUILDERS, resolve_id)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, with every element inside it and no more elements than it has (no `expand`)."""
    if not isinstance(storage, Tensor) or storage.dim() != 1:
        raise ValueError("a tensor without a storage")
    numbers = (offset, *size, *stride)
    if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers) or len(size) != len(stride):
        raise ValueError("a tensor whose offset, size or stride is no list of natural numbers")
    if len(size) > MAX_DIMENSIONS or prod(size) > len(storage):
        raise ValueError("a tensor with more elements than its storage has")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if prod(size) and last >= len(storage):
        raise ValueError(f"a tensor that reaches beyond its storage of {len(storage)} elements")
    return storage.as_strided(size, stride, offset) if prod(size) else storage.new_empty(size)


def _rebuild_parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter without a tensor")
    return data


def _from_bytes(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


TENSOR_BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}
