"""Which columns of a Parquet file hold the images, and which their objects."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from .....errors import JobError
from ..delimited import plain
from .layout import Asked, Layout, layout_of
from .nested import is_list, is_one_object

_PATHS = ("filename", "filepath", "imagepath", "imagename", "imagefile", "path", "image", "file")


@dataclass(frozen=True)
class Columns:
    """Where in a row its parts are."""

    image: str | None
    """Column of bytes, with a dot for a member of a struct; None: `name` is the path of a file."""
    name: str | None
    layout: Layout
    size: tuple[str, str] | None

    @property
    def small(self) -> list[str]:
        """Columns that the driver reads."""
        objects = [self.layout.objects] if self.layout.objects else [
            *self.layout.boxes, *filter(None, [self.layout.labels, self.layout.iscrowd])]
        return [*objects, *([self.name] if self.name else []), *(self.size or ())]


def columns_of(file: pq.ParquetFile, spec, asked: Asked, path: str) -> Columns:
    """Where the parts of a row are; JobError names all columns where that cannot be told."""
    schema = file.schema_arrow
    shown = ", ".join(f"{field.name}: {field.type}" for field in schema)
    layout = layout_in(schema, asked, path)
    if layout is None:
        raise JobError(path, f"which columns hold the boxes? It has {shown}",
                       "set source.objects to the one with structs, or source.boxes and source.labels")
    if layout.labels is None and len(spec.classes or ()) != 1:
        raise JobError(path, f"which column holds the classes? It has {shown}",
                       "set source.labels, or source.classes to the one class")
    asked_image = getattr(spec, "image", None)
    fields = [field for field in schema if asked_image in (None, field.name)]
    inside = [field for field in fields if _is_binary(field.type) or _holds_bytes(field.type)]
    if len(inside) > 1:
        inside = [field for field in inside if plain(field.name) in ("image", "img")] or inside
    texts = [field.name for field in fields if _is_text(field.type) and (asked_image or plain(field.name) in _PATHS)]
    if len(inside) > 1 or not inside and len(texts) != 1:
        raise JobError("source.image", f"which column of {path} holds the images, or their paths? It has {shown}",
                       "set it to one with bytes, paths, or structs of bytes and path")
    if inside and is_one_object(schema, layout):
        raise JobError(path, f"has a row for each object, with the image in it? It has {shown}",
                       "write a row for each image with lists of boxes and classes, or the paths of images")
    names = {plain(name): name for name in schema.names}
    size = (names["height"], names["width"]) if {"height", "width"} <= names.keys() else None
    if not inside:
        return Columns(None, texts[0], layout, size)
    [field] = inside
    if _is_binary(field.type):
        return Columns(field.name, texts[0] if len(texts) == 1 else None, layout, size)
    name = f"{field.name}.path" if field.type.get_field_index("path") >= 0 else None
    is_empty = file.metadata.num_rows and _num_null(file, f"{field.name}.bytes") == file.metadata.num_rows
    return Columns(None if is_empty and name else f"{field.name}.bytes", name, layout, size)


def layout_in(schema: pa.Schema, asked: Asked, path: str) -> Layout | None:
    """Where the objects are, by the names in a schema."""
    inner = []
    for field in schema:
        held = field.type
        while is_list(held):
            held = held.value_type
        if pa.types.is_struct(held):
            inner.append((field.name, tuple(held.field(number).name for number in range(held.num_fields))))
    return layout_of(tuple(schema.names), tuple(inner), asked, path)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)


def chunks_of(file: pq.ParquetFile, column: str) -> Iterator[pq.ColumnChunkMetaData]:
    """The metadata of a column in each row group."""
    for group in range(file.num_row_groups):
        held = file.metadata.row_group(group)
        yield from (held.column(number) for number in range(held.num_columns)
                    if held.column(number).path_in_schema == column)


def _num_null(file: pq.ParquetFile, column: str) -> int:
    """Rows whose value is null, as far as the file tells."""
    return sum(chunk.statistics.null_count for chunk in chunks_of(file, column)
               if chunk.statistics and chunk.statistics.has_null_count)
