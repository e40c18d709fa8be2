"""Items whose images lie in larger files, as columns: an image takes about 50 bytes and its name, and its objects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from ..... import storage
from .....storage.disk import FileInfo
from ...item import Item, Raw, RawSource, left_aside, note, problem_record
from ...objects import Objects, Problem
from ..boxes import Boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedItem(Item):
    """An image in a larger file; the subclass reads it."""

    siblings: "PackedItems"
    index: int

    def known(self) -> tuple[Objects, tuple[int, int] | None, bool]:
        """The objects in the columns."""
        return (self.siblings.objects_of(self.index), self.siblings.declared_hw(self.index), self.siblings.relative)

    def raw(self, data: bytes, problem: Problem | None = None) -> Raw:
        """The item with its image."""
        objects, declared_hw, relative = self.known()
        return Raw(data, objects, relative, declared_hw, problem)


@dataclass(frozen=True)
class PackedItems(Sequence):
    """The items of a split, made on access; a slice holds only its own columns."""

    make: type[PackedItem]
    files: tuple[tuple[str, str], ...]
    """URI and mark of each file."""
    column: str
    names: pa.Array
    image_ids: np.ndarray
    file: np.ndarray
    """Position in `files`."""
    places: np.ndarray
    """(images, 2)."""
    num_bytes: np.ndarray
    sizes_hw: np.ndarray
    """(images, 2) as declared, 0 where they are not."""
    objects: Objects
    counts: np.ndarray
    """Objects of each image."""
    relative: bool

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _ends(self) -> np.ndarray:
        return self.objects.ends(self.counts)

    def __getitem__(self, index: int | slice) -> "PackedItem | PackedItems":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = range(len(self))[index]
        first, second = self.places[index].tolist()
        return self.make(image_id=int(self.image_ids[index]), file_name=self.names[index].as_py(),
                         num_bytes=int(self.num_bytes[index]), mark=f"{self.files[self.file[index]][1]} {first} {second}",
                         siblings=self, index=index)

    def objects_of(self, index: int) -> Objects:
        """The objects of one image."""
        return self.objects.cut(self._ends[index], self._ends[index + 1])

    def place(self, index: int) -> tuple[str, str, int, int]:
        """URI and mark of the file of one image; offset and length in a tar, row group and row in a Parquet file."""
        return (*self.files[self.file[index]], *self.places[index].tolist())

    def declared_hw(self, index: int) -> tuple[int, int] | None:
        """Height and width of one image, if its record tells."""
        height, width = self.sizes_hw[index].tolist()
        return (height, width) if height and width else None

    def take(self, chosen: np.ndarray) -> "PackedItems":
        """The images at the positions `chosen`, in that order, with copies of their objects."""
        objects, counts = self.objects.take_groups(self._ends, chosen)
        files, file = np.unique(self.file[chosen], return_inverse=True)
        return replace(self, files=tuple(self.files[number] for number in files.tolist()), file=file,
                       names=self.names.take(pa.array(chosen)), image_ids=self.image_ids[chosen],
                       places=self.places[chosen], num_bytes=self.num_bytes[chosen], sizes_hw=self.sizes_hw[chosen],
                       objects=objects, counts=counts)


class Packing:
    """Collects the images of a split, file by file."""

    def __init__(self, split: str, relative: bool):
        self.split = split
        self.boxes = Boxes(relative)
        self.files: list[tuple[str, str]] = []
        self.problems: list[dict] = []
        self.num_images = 0
        self._parts: list[tuple] = []

    def file(self, uri: str, info: FileInfo) -> None:
        """The images that are added next lie in this file."""
        self.files.append((storage.join(uri, info.path), info.mark))

    def drop(self, problem: Problem, name: str) -> None:
        """Record an image that is lost."""
        self.problems.append(problem_record(self.split, problem, name))

    def add(self, names: Sequence[str], places: np.ndarray, num_bytes: np.ndarray, sizes_hw: np.ndarray) -> np.ndarray:
        """Images of the current file; returns their numbers, by which `boxes` knows them."""
        numbers = np.arange(self.num_images, self.num_images + len(names))
        self.num_images += len(names)
        self._parts.append((pa.array(names, pa.large_string()), np.full(len(names), len(self.files) - 1),
                            places.reshape(-1, 2), num_bytes, sizes_hw.reshape(-1, 2)))
        return numbers

    def items(self, make: type[PackedItem], column: str = "") -> PackedItems:
        """All of them."""
        names, *columns = zip(*self._parts) if self._parts else ((), (), (), (), ())
        objects, counts = self.boxes.objects(np.arange(self.num_images))
        shapes = ((0,), (0, 2), (0,), (0, 2))
        file, places, num_bytes, sizes = (np.concatenate([np.zeros(shape, np.int64), *parts])
                                          for shape, parts in zip(shapes, columns))
        return PackedItems(make, tuple(self.files), column, pa.concat_arrays([pa.array([], pa.large_string()), *names]),
                           np.arange(self.num_images), file, places, num_bytes, sizes, objects,
                           np.append(counts, np.zeros(self.num_images - len(counts), np.int64)), self.boxes.relative)


def source_of(classes: Sequence[str], splits: dict[str, PackedItems], packings: Iterable[Packing],
              aside: Sequence[str]) -> RawSource:
    """The source of these items, with all that was lost or bent, and files of no split."""
    problems = {packing.split: packing.problems + [
        note(packing.split, reason, count, example) for reason, (count, example) in packing.boxes.notes.items()]
        for packing in packings}
    problems[next(iter(problems))] += left_aside(aside)
    return RawSource(tuple(classes), tuple(range(len(classes))), splits, problems)
