"""Rows of boxes, collected as columns and joined with the images of a folder: about 50 bytes an object.

A row that repeats an earlier one is dropped and counted. Images in a directory of listed ones of which no row tells
are not annotated: they are dropped and counted, not background; a row without box says that an image is background.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from .... import storage
from ....errors import JobError
from ....storage.file_list import FileColumns
from ...files.resolver import Resolver
from ...files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ..item import ColumnItems, RawSource, bends, left_aside, note, problem_record, unreadable
from ..objects import UNUSABLE, Objects, Problem

REVERSED = "reversed corners of a box put in order"
DUPLICATE = "duplicate row"
NOT_ANNOTATED = "image without rows"


class Boxes:
    """Objects of one split by the name of their image."""

    def __init__(self, relative: bool):
        self.relative = relative
        self.names: dict[str, int] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        """Image -> declared height and width."""
        self.notes: dict[str, list] = {}
        """What was bent -> how often, and an example."""
        self.lost: list[tuple[str, Problem]] = []
        """Images that rows name, or try to, and why they cannot be used."""
        self._image, self._label, self._crowd, self._xyxy = array("q"), array("i"), array("b"), array("d")
        self._problems: dict[int, Problem] = {}

    def image(self, name: str, size_hw: tuple[int, int] | None = None) -> int:
        """The number of the image with this name."""
        number = self.names.setdefault(name, len(self.names))
        if size_hw and self.sizes.setdefault(number, size_hw) != size_hw:
            self.tell("another size declared for the same image", name)
        return number

    def tell(self, reason: str, example: str, count: int = 1) -> None:
        """Count something of which nothing is dropped."""
        self.notes.setdefault(reason, [0, example])[0] += count

    def add(self, image: int, label: int, xyxy: Sequence[float], iscrowd: bool, where: str) -> None:
        """An object; its corners may be reversed."""
        x1, y1, x2, y2 = xyxy
        if x2 < x1 or y2 < y1:
            self.tell(REVERSED, where)
            x1, y1, x2, y2 = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        self._image.append(image)
        self._label.append(label)
        self._crowd.append(iscrowd)
        self._xyxy.extend((x1, y1, x2, y2))

    def add_problem(self, image: int, problem: Problem) -> None:
        """A row that is no object."""
        self._problems[len(self._image)] = problem
        self.add(image, UNUSABLE, (0, 0, 0, 0), False, "")

    def extend(self, images: np.ndarray, labels: np.ndarray, crowd: np.ndarray, xyxy: np.ndarray,
               problems: dict[int, Problem], where: str) -> None:
        """Many objects, as of `add`; those with label `UNUSABLE` have a problem, by position."""
        self._problems |= {len(self._image) + position: problem for position, problem in problems.items()}
        first, second = xyxy[:, :2], xyxy[:, 2:]
        if flipped := int((second < first).any(1).sum()):
            self.tell(REVERSED, where, flipped)
        self._image.frombytes(images.astype(np.int64).tobytes())
        self._label.frombytes(labels.astype(np.int32).tobytes())
        self._crowd.frombytes(crowd.astype(np.int8).tobytes())
        self._xyxy.frombytes(np.hstack([np.minimum(first, second), np.maximum(first, second)]).tobytes())

    def relabel(self, target: np.ndarray, names: Sequence[str | int]) -> None:
        """Provisional labels, which count `names`, become those of `target`; an object of class -1 is a problem."""
        labels = np.array(self._label, np.int32)
        final = np.append(target, UNUSABLE).astype(np.int32)[labels]
        for position in np.flatnonzero((final == UNUSABLE) & (labels != UNUSABLE)).tolist():
            self._problems[position] = Problem("unknown class", repr(names[labels[position]]))
        self._label = array("i", final.tobytes())

    def check_unit(self, coordinates: str | None, where: str) -> None:
        """JobError if all coordinates are fractions of the image, or pixels of tiny boxes, and the job tells nothing."""
        found = self.coordinates()
        if coordinates is None and len(found) and found.min() >= 0 and found.max() <= 1:
            raise JobError(where, "all its coordinates are within 0 to 1: fractions of the image, or pixels of tiny "
                                  "boxes", "set source.coordinates to fractions or pixels")

    def counts(self) -> np.ndarray:
        """(images,) objects and problems of each image."""
        return np.bincount(np.array(self._image, np.int64), minlength=len(self.names))

    def coordinates(self) -> np.ndarray:
        """(n, 4) boxes of the objects."""
        return np.array(self._xyxy).reshape(-1, 4)[np.array(self._label) != UNUSABLE]

    def objects(self, target: np.ndarray) -> tuple[Objects, np.ndarray]:
        """Objects in order of the image that `target` has for each name, without those of -1, and their counts."""
        image = target[np.frombuffer(self._image, np.int64)] if self._image else np.zeros(0, np.int64)
        labels, boxes = np.array(self._label, np.int32), np.array(self._xyxy).reshape(-1, 4)
        n = len(labels)
        crowd = np.array(self._crowd, np.bool_)
        key = np.column_stack([image, labels, crowd, boxes])
        _, first = np.unique(key, axis=0, return_index=True)
        repeated = np.ones(n, np.bool_)
        repeated[first] = False
        repeated &= labels != UNUSABLE
        problems = dict(self._problems)
        problems |= {row: Problem(DUPLICATE, f"box {boxes[row].tolist()}") for row in np.flatnonzero(repeated).tolist()}
        zeros = np.zeros(n, np.int32)
        columns = Objects(np.where(repeated, UNUSABLE, labels).astype(np.int32), boxes, crowd, np.full(n, np.nan),
                          zeros, np.zeros(0, np.int32), np.zeros(0, np.float32), problems)
        order = np.argsort(image, kind="stable")
        order = order[image[order] >= 0]
        return columns.take(order), np.bincount(image[order], minlength=int(target.max(initial=-1)) + 1)


def _items(uri: str, images: FileColumns, boxes: Boxes, target: np.ndarray) -> ColumnItems:
    """The images, and the boxes of those that `target` has for each name."""
    objects, counts = boxes.objects(target)
    sizes_hw = np.zeros((len(images), 2), np.int64)
    for number, size_hw in boxes.sizes.items():
        if target[number] >= 0:
            sizes_hw[target[number]] = size_hw
    ends = objects.ends(np.append(counts, np.zeros(len(images) - len(counts), np.int64)))
    return ColumnItems(uri, np.arange(len(images)), images, sizes_hw, objects, ends, boxes.relative)


class Folder:
    """The images of a folder, as tables in it name them."""

    def __init__(self, uri: str):
        self.uri = uri
        files = storage.list_files(uri).by_path
        self.images = files.where(lambda path: path.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES))
        if not self.images:
            raise JobError(uri, "there are no images here", "check source.uri")

    def resolver(self, table: str) -> Resolver:
        """The images below the table's own directory, where there are any; else all."""
        prefix = table.rpartition("/")[0] + "/"
        inside = self.images.where(lambda path: path.startswith(prefix)) if prefix != "/" else self.images
        return Resolver(inside or self.images, self.uri, IMAGE_SUFFIXES + OTHER_PICTURES)


def joined(folder: Folder, classes: Sequence[str], tables: dict[str, tuple[str, Boxes]], inputs: Sequence[str],
           names_have_suffix: bool = True) -> RawSource:
    """The source of all splits: split -> path of the table, and its boxes; `inputs` are digests of what was read."""
    splits, problems, used = {}, {}, set()
    directories = defaultdict(Counter)
    for split, (table, boxes) in tables.items():
        resolver, images, records, known = folder.resolver(table), FileColumns(), [], {}
        counts = boxes.counts()
        target = np.full(len(boxes.names), -1, np.int64)
        for name, number in boxes.names.items():
            found = resolver.find(_beside(folder, table, name))
            if found is None:
                missing = Problem("missing image file", f"no image {name}", True, num_objects=int(counts[number]))
                records.append(problem_record(split, missing, name))
            elif found.path.lower().endswith(OTHER_PICTURES):
                records.append(problem_record(split, unreadable(found.path, int(counts[number])), found.path))
            else:
                if found.path not in known:
                    known[found.path] = len(images)
                    images.append(found)
                target[number] = known[found.path]
            if found is not None:
                used.add(found.path)
                directories[found.path.rpartition("/")[0]][split] += 1
        for name, problem in boxes.lost:
            records.append(problem_record(split, problem, name))
            if name and (found := resolver.find(_beside(folder, table, name))):
                used.add(found.path)
        if not names_have_suffix:
            del resolver.bent["no extension"]
        records += [note(split, reason, count, example) for reason, (count, example) in boxes.notes.items()]
        problems[split] = records + bends(split, resolver)
        splits[split] = _items(folder.uri, images, boxes, target)
    aside = []
    for path in sorted(folder.images.keys() - used):
        if near := directories.get(path.rpartition("/")[0]):
            split = near.most_common(1)[0][0]
            problems[split].append(problem_record(split, Problem(NOT_ANNOTATED, path, True), path))
        else:
            aside.append(path)
    problems[next(iter(problems))] += left_aside(aside)
    return RawSource(tuple(classes), tuple(range(len(classes))), splits, problems, tuple(inputs))


def _beside(folder: Folder, table: str, name: str) -> str:
    """The name below the table's directory where that is a file, else as it is."""
    path = f"{table.rpartition('/')[0]}/{name}".lstrip("/")
    return path if path in folder.images else name
