"""COCO instances JSON: images, annotations with [x, y, width, height], polygons or RLE, and categories."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ... import storage
from ...errors import JobError
from ...storage.disk import FileInfo
from .instances import Instances, read_instances
from .item import Item, Raw, RawSource, problem_record
from .objects import UNUSABLE, Objects, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoItem(Item):
    """An image file, and the position of its objects in the columns."""

    siblings: "CocoItems"
    index: int

    def fetch(self) -> Raw:
        """Read the file."""
        return Raw(storage.read_bytes(storage.join(self.siblings.images_uri, self.file_name)),
                   self.siblings.objects_of(self.index), declared_hw=self.siblings.declared_hw(self.index))


@dataclass(frozen=True, slots=True, eq=False)
class CocoItems(Sequence[CocoItem]):
    """Images of a split, with all their objects in shared columns; a slice holds only its own objects."""

    images_uri: str
    image_ids: np.ndarray
    files: list[FileInfo]
    sizes_hw: np.ndarray
    """(images, 2) as declared, 0 where they are not."""
    objects: Objects
    ends: np.ndarray
    """(images + 1, 3) where each image's objects end (`Objects.ends`), counted from those of the first image."""

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int | slice) -> "CocoItem | CocoItems":
        if isinstance(index, slice):
            first, last, _ = index.indices(len(self))
            return CocoItems(self.images_uri, self.image_ids[first:last], self.files[first:last],
                             self.sizes_hw[first:last], self.objects.cut(self.ends[first], self.ends[last]),
                             self.ends[first:last + 1] - self.ends[first])
        file = self.files[index]
        return CocoItem(image_id=int(self.image_ids[index]), file_name=file.path, num_bytes=file.num_bytes,
                        mark=file.mark, siblings=self, index=index)

    def objects_of(self, index: int) -> Objects:
        """The objects of one image."""
        return self.objects.cut(self.ends[index], self.ends[index + 1])

    def declared_hw(self, index: int) -> tuple[int, int] | None:
        """Height and width of an image by the annotation file, if it tells."""
        height, width = self.sizes_hw[index].tolist()
        return (height, width) if height else None


def read(spec) -> RawSource:
    """Read all splits; their categories are joined by id, and become classes in order of id."""
    instances = {split: read_instances(storage.join(spec.uri, place.annotations))
                 for split, place in spec.splits.items()}
    inputs = tuple(columns.sha256 for columns in instances.values())
    names = _categories(instances, spec.uri)
    class_ids = tuple(sorted(names))
    items, problems = {}, {}
    for split, place in spec.splits.items():
        images = storage.join(spec.uri, place.images)
        items[split], problems[split] = _read_split(split, images, instances.pop(split), class_ids)
    return RawSource(tuple(names[i] for i in class_ids), class_ids, items, problems, inputs)


def _categories(instances: dict[str, Instances], uri: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for split, columns in instances.items():
        for category_id, name in columns.categories:
            first = names.setdefault(category_id, name)
            if name != first:
                raise JobError(uri, f"category {category_id} is '{first}' in one split and '{name}' in split "
                                    f"'{split}'", "give all splits the same categories")
    return names


def _read_split(split: str, images_uri: str, instances: Instances,
                class_ids: tuple[int, ...]) -> tuple[CocoItems, list[dict]]:
    present = {info.path: info for info in storage.list_files(images_uri)}
    if not present:
        raise JobError(images_uri, "there are no images here", "check source.uri and source.splits")
    objects, problems = _objects(split, instances, class_ids)
    files: dict[int, tuple[FileInfo, int]] = {}  # with the position in the file
    for position, (image_id, name) in enumerate(zip(instances.image_ids, instances.file_names, strict=True)):
        problem = None
        if image_id in files:
            problem = Problem("duplicate image id", "the first image with this id stays", is_image=True)
        elif name not in present:
            problem = Problem("missing image file", f"no file {name} below {images_uri}", is_image=True)
        if problem:
            problems.append(problem_record(split, problem, name, image_id))
        else:
            files[image_id] = present[name], position
    sizes_hw = np.asarray(instances.sizes_hw).reshape(-1, 2)[[position for _, position in files.values()]]
    image_ids = np.fromiter(files, np.int64, len(files))
    objects, ends = _by_image(image_ids, objects, np.asarray(instances.of_image))
    return CocoItems(images_uri, image_ids, [file for file, _ in files.values()], sizes_hw, objects, ends), problems


def _objects(split: str, instances: Instances, class_ids: tuple[int, ...]) -> tuple[Objects, list[dict]]:
    """All annotations in the file's order, and records of those whose image is unknown."""
    ids, of_image, category_ids = map(np.asarray, (instances.ids, instances.of_image, instances.category_ids))

    def described(position: int) -> str:
        return f"annotation {instances.identity(ids[position])}"

    known = np.isin(of_image, np.asarray(instances.image_ids))
    unknown = [problem_record(split, Problem("annotation of an unknown image", described(position)),
                              image_id=instances.identity(of_image[position]))
               for position in np.flatnonzero(~known)]
    labels = np.where(np.isin(category_ids, class_ids), np.searchsorted(class_ids, category_ids), UNUSABLE)
    problems = {position: Problem("malformed box", f"{described(position)}: {box}")
                for position, box in instances.malformed.items()}
    problems |= {position: Problem("unknown class", f"{described(position)}: "
                                                    f"category_id {instances.identity(category_ids[position])}")
                 for position in np.flatnonzero(labels == UNUSABLE).tolist()}
    problems |= {position: Problem("duplicate annotation id", f"id {instances.identity(ids[position])}")
                 for position in _repeated(ids, known & (ids != instances.code(None))).tolist()}
    labels[list(problems)] = UNUSABLE
    return Objects(labels.astype(np.int32), np.asarray(instances.boxes_xyxy).reshape(-1, 4),
                   np.asarray(instances.iscrowd).view(np.bool_), np.asarray(instances.area),
                   np.asarray(instances.num_rings), np.asarray(instances.ring_lengths), np.asarray(instances.xy),
                   problems), unknown


def _repeated(ids: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Positions of ids that occur at an earlier counted position."""
    positions = np.flatnonzero(counted)
    return np.delete(positions, np.unique(ids[positions], return_index=True)[1])


def _by_image(image_ids: np.ndarray, objects: Objects, of_image: np.ndarray) -> tuple[Objects, np.ndarray]:
    """The objects of each image in turn, in file order, and where they end; those of other images are left out."""
    by_id = np.argsort(image_ids)
    wanted = np.flatnonzero(np.isin(of_image, image_ids))
    image = by_id[np.searchsorted(image_ids, of_image[wanted], sorter=by_id)]
    objects = objects.take(wanted[np.argsort(image, kind="stable")])
    return objects, objects.ends(np.bincount(image, minlength=len(image_ids)))
