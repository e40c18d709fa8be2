"""Objects in nested Arrow columns, as columns: no Python object for each of them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .....errors import JobError
from ...objects import UNUSABLE, Problem
from ..boxes import Boxes
from ..delimited import plain
from .labels import Labels
from .layout import CORNER_AND_SIZE, Layout, Order, corners, sides_of


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists, of any kind."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


@dataclass(frozen=True)
class NestedObjects:
    """The objects of the rows of a table."""

    counts: np.ndarray
    """(rows,) boxes of each."""
    is_even: np.ndarray
    """(rows,) whether there are as many classes as boxes."""
    boxes: tuple[pa.Array, ...]
    """Lists of numbers for each row: one array of lists of lists, or four of lists."""
    labels: pa.Array | None
    iscrowd: pa.Array | None
    order: Order

    @classmethod
    def of(cls, table: pa.Table, layout: Layout, where: str) -> "NestedObjects":
        """Find them by their names; JobError if a column is of another type."""
        if layout.objects is None:
            parts = {name: _one(table[name]) for name in table.column_names}
        else:
            parts = _members(_one(table[layout.objects]))
        if is_one_object(table.schema, layout):
            parts = _in_lists(parts, [name for name in (*layout.boxes, layout.labels, layout.iscrowd) if name],
                              parts[layout.boxes[0]].is_valid())
        boxes, order = _sides(tuple(parts[name] for name in layout.boxes), layout)
        for name, values in zip(layout.boxes, boxes):
            inner = values.type.value_type if is_list(values.type) else None
            if inner is None or is_list(inner) != (len(boxes) == 1):
                raise JobError(where, f"{name} is {values.type}, not a list of boxes for each image",
                               "write a row for each image, with lists of four numbers")
        order = order or layout.of_numbers(where.partition(" row group ")[0])
        labels, crowd = (parts[name] if name else None for name in (layout.labels, layout.iscrowd))
        if labels is not None and not is_list(labels.type):
            raise JobError(where, f"{layout.labels} is {labels.type}, not a list of classes for each image",
                           "set source.labels to one that is")
        counts = _lengths(boxes[0])
        is_even = np.logical_and.reduce([_lengths(part) == counts for part in (*boxes[1:], labels) if part is not None]
                                        or [np.ones(len(counts), np.bool_)])
        if crowd is not None and (not is_list(crowd.type) or (_lengths(crowd) != counts).any()):
            crowd = None
        return cls(counts, is_even, boxes, labels, crowd, order)

    def add(self, rows: np.ndarray, numbers: np.ndarray, boxes: Boxes, labels: Labels, names: list[str], spec,
            where: str) -> None:
        """Add the objects of these rows to `boxes`, for the images with these numbers."""
        images = np.repeat(numbers, self.counts[rows])
        xyxy, is_box = self._xyxy(rows)
        crowd = np.zeros(len(images), np.bool_)
        if self.iscrowd is not None:
            flags = pc.list_flatten(self.iscrowd.take(pa.array(rows)))
            crowd = flags.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False) == 1
        if self.labels is None:
            found, told = np.full(len(images), labels.of(spec.classes[0]), np.int32), None
        else:
            told = pc.list_flatten(self.labels.take(pa.array(rows))).dictionary_encode()
            known = [labels.of(value, names) for value in told.dictionary.to_pylist()]
            codes = told.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
            found = np.array([*known, UNUSABLE], np.int32)[codes]
        problems = {position: Problem("unknown class", f"none in {where}")
                    for position in np.flatnonzero(found == UNUSABLE).tolist()}
        problems |= {position: Problem("box is no four numbers", where) for position in np.flatnonzero(~is_box).tolist()}
        boxes.extend(images, np.where(is_box, found, UNUSABLE), crowd, xyxy, problems, where)

    def _xyxy(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 4) corners, and whether they are four numbers."""
        parts = [_flat(part.take(pa.array(rows))) for part in self.boxes]
        if len(parts) == 4:
            values = np.column_stack([_floats(part) for part in parts])
            is_box = np.ones(len(values), np.bool_)
        else:
            [lists] = parts
            is_box = _lengths(lists) == 4
            values = np.zeros((len(lists), 4))
            values[is_box] = _floats(_flat(lists.filter(pa.array(is_box)))).reshape(-1, 4)
        is_box &= ~np.isnan(values).any(1)
        values[~is_box] = 0
        return np.column_stack(corners(values.T, self.order)), is_box


def is_one_object(schema: pa.Schema, layout: Layout) -> bool:
    """Whether a row is one object, not an image with lists of them: its box is four numbers, however they are held."""
    if layout.objects is not None or not {layout.boxes[0], layout.labels or layout.boxes[0]} <= set(schema.names):
        return False
    if layout.labels and is_list(schema.field(layout.labels).type):
        return False
    kind = schema.field(layout.boxes[0]).type
    inner = kind.value_type if is_list(kind) else None
    return inner is None or len(layout.boxes) == 1 and not is_list(inner) and not pa.types.is_struct(inner)


def _in_lists(parts: dict[str, pa.Array], names: list[str], is_object: pa.Array) -> dict[str, pa.Array]:
    """The parts of rows that are one object each, as lists: of one, or of none where there is no box."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(is_object.to_numpy(zero_copy_only=False))]).astype(np.int64))
    return parts | {name: pa.LargeListArray.from_arrays(offsets, parts[name].filter(is_object)) for name in names}


def _sides(boxes: tuple[pa.Array, ...], layout: Layout) -> tuple[tuple[pa.Array, ...], Order | None]:
    """The boxes, and what their numbers are; those that are structs as four lists."""
    kind = boxes[0].type
    if len(boxes) > 1 or not is_list(kind) or not pa.types.is_struct(kind.value_type):
        return boxes, layout.order
    members = _members(boxes[0])
    sides = sides_of(tuple(members))
    if sides is None:
        return boxes, layout.order
    is_centre = layout.order == "cxcywh" and tuple(map(plain, sides[0])) in CORNER_AND_SIZE
    return tuple(members[name] for name in sides[0]), layout.order if is_centre else sides[1]


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) if column.num_chunks else (
        pa.array([], column.type))


def _members(values: pa.Array) -> dict[str, pa.Array]:
    """Name -> a list for each row, of a struct of lists or a list of structs."""
    kind = values.type
    if pa.types.is_struct(kind):
        return {kind.field(number).name: pc.struct_field(values, [number]) for number in range(kind.num_fields)}
    flat = _flat(values)
    offsets = pa.array(np.concatenate([[0], np.cumsum(_lengths(values))]).astype(np.int64))
    return {flat.type.field(number).name: pa.LargeListArray.from_arrays(offsets, pc.struct_field(flat, [number]))
            for number in range(flat.type.num_fields)}


def _flat(values: pa.Array) -> pa.Array:
    """All entries of the lists that are not null."""
    return pc.list_flatten(values)


def _lengths(values: pa.Array) -> np.ndarray:
    return pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def _floats(values: pa.Array) -> np.ndarray:
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
