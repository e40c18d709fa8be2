"""Parquet: a row for each image, with its bytes or path, and its objects in nested columns.

Objects are a struct of lists, a list of structs, or lists beside the image. The driver reads these columns, row group
by row group, and never the images.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .... import storage
from ....errors import JobError
from ...files.listing import Listing
from ..item import RawSource
from ..objects import Problem
from .boxes import Folder, joined
from .records.class_label import class_label_names
from .records.labels import Labels
from .records.layout import Asked
from .records.nested import NestedObjects
from .records.packed import Packing, source_of
from .records.parquet_columns import Columns, chunks_of, columns_of, layout_in
from .records.row_groups import RowItem, parquet_file
from .splits import shards_by_split

SUFFIXES = (".parquet", ".pq")


def evidence(listing: Listing) -> list[str]:
    """Files with boxes that the `datasets` library did not write: those are of Hugging Face."""
    return [path for path, schema in schemas(listing) if not is_hugging_face(schema) and has_boxes(schema)]


def schemas(listing: Listing):
    """A few Parquet files and their schemas; those that are none are left out."""
    for path in listing.probes(*SUFFIXES):
        try:
            yield path, schema_at(storage.join(listing.uri, path), listing.files[path].num_bytes)
        except JobError:
            continue


@lru_cache(64)
def schema_at(where: str, num_bytes: int) -> pa.Schema:
    """The schema in the footer of a file."""
    return parquet_file(where, num_bytes).schema_arrow


def is_hugging_face(schema: pa.Schema) -> bool:
    """Whether the `datasets` library wrote this."""
    return b"huggingface" in (schema.metadata or {})


def has_boxes(schema: pa.Schema) -> bool:
    """Whether its names speak of boxes, in one reading or several."""
    try:
        return layout_in(schema, Asked(None, None, None, None, "xywh"), "") is not None
    except JobError:
        return True


def read(spec) -> RawSource:
    """Read the objects of all files; JobError names the columns where there are several readings, or none."""
    listing = Listing(spec.uri)
    return read_files(spec, listing, [path for path in listing.files if path.lower().endswith(SUFFIXES)], Asked.by(spec))


def read_files(spec, listing: Listing, paths: list[str], asked: Asked) -> RawSource:
    """The source that these files make; images are in them, or named by them."""
    if not paths:
        raise JobError("source.uri", f"no Parquet file is at {spec.uri}", "give the directory of the files")
    files, aside = shards_by_split(paths, spec.splits)
    rows = _Rows(spec, listing, asked)
    splits = {split: Packing(split, spec.coordinates == "fractions") for split in files}
    columns = {rows.read(path, splits[split]) for split, chosen in files.items() for path in chosen}
    if len(columns) > 1:
        raise JobError("source.image", f"the images of the files at {spec.uri} are not in the same column",
                       "give files of one kind")
    [column] = columns
    names, target = rows.labels.resolved(spec.classes, rows.known, spec.uri)
    for split, packing in splits.items():
        packing.boxes.relabel(target, list(rows.labels.values))
        packing.boxes.check_unit(spec.coordinates, files[split][0])
    if column is not None:
        return source_of(names, {split: packing.items(RowItem, column) for split, packing in splits.items()},
                         splits.values(), aside)
    return joined(Folder(spec.uri), names, {split: (files[split][0], packing.boxes) for split, packing in splits.items()},
                  [mark for packing in splits.values() for _, mark in packing.files])


class _Rows:
    """Reads the rows of files, and collects the classes of all."""

    def __init__(self, spec, listing: Listing, asked: Asked):
        self.spec, self.listing, self.asked = spec, listing, asked
        self.labels, self.known = Labels(), {}
        """Classes that occur, and names that the files give to numbers."""

    def read(self, path: str, packing: Packing) -> str | None:
        """Add the rows of one file; returns the column of its images, None if they are files."""
        info = self.listing.files[path]
        file = parquet_file(storage.join(self.listing.uri, path), info.num_bytes)
        columns = columns_of(file, self.spec, self.asked, path)
        names = class_label_names(file.schema_arrow, columns.layout)
        self.known.update(dict.fromkeys(names))
        packing.file(self.listing.uri, info)
        image_bytes = [chunk.total_uncompressed_size // max(chunk.num_values, 1)
                       for chunk in chunks_of(file, columns.image)]
        for group in range(file.num_row_groups):
            where = f"{path} row group {group}"
            try:
                table = file.read_row_group(group, columns=columns.small)
            except (pa.ArrowException, OSError) as error:
                raise JobError(path, f"row group {group} cannot be read: {error}", "write the file again") from None
            objects = NestedObjects.of(table, columns.layout, where)
            paths = _strings(table, columns.name)
            rows = self._usable(objects, paths, columns, packing, where)
            sizes = _sizes(table, columns)[rows]
            if columns.image is None:
                numbers = np.array([packing.boxes.image(paths[row], tuple(size) if all(size) else None)
                                    for row, size in zip(rows.tolist(), sizes.tolist())], np.int64)
            else:
                stem = path.rpartition(".")[0]
                numbers = packing.add([paths[row] or f"{stem}/{group:05d}-{row:06d}" for row in rows.tolist()],
                                      np.column_stack([np.full(len(rows), group), rows]),
                                      np.full(len(rows), image_bytes[group]), sizes)
            objects.add(rows, numbers, packing.boxes, self.labels, names, self.spec, where)
        return columns.image

    @staticmethod
    def _usable(objects: NestedObjects, paths: list[str | None], columns: Columns, packing: Packing,
                where: str) -> np.ndarray:
        """The rows that tell what they hold; the others are recorded as lost."""
        is_named = np.array([bool(path) for path in paths], np.bool_) | (columns.image is not None)
        for row in np.flatnonzero(~(objects.is_even & is_named)).tolist():
            reason = "boxes and classes of different number" if is_named[row] else "row without an image"
            problem = Problem(reason, f"{where} row {row}", is_image=True, num_objects=int(objects.counts[row]))
            if columns.image is None:
                packing.boxes.lost.append((paths[row] or "", problem))
            else:
                packing.drop(problem, paths[row] or "")
        return np.flatnonzero(objects.is_even & is_named)


def _strings(table: pa.Table, name: str | None) -> list[str | None]:
    if name is None:
        return [None] * table.num_rows
    column, _, member = name.partition(".")
    return (pc.struct_field(table[column], member) if member else table[column]).to_pylist()


def _sizes(table: pa.Table, columns: Columns) -> np.ndarray:
    """(rows, 2) height and width as declared, 0 where they are not."""
    sizes = np.zeros((table.num_rows, 2), np.int64)
    for side, name in enumerate(columns.size or ()):
        sizes[:, side] = [value if isinstance(value, int) and value > 0 else 0 for value in table[name].to_pylist()]
    return sizes
