"""COCO instances JSON: images, annotations with [x, y, width, height], polygons or RLE, and categories."""

import itertools
import posixpath
from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from ... import storage
from ...errors import JobError
from ...storage.file_list import FileColumns, FileMap
from ...storage.location import scheme_of
from ..files.place import images_below
from ..files.resolver import Resolver
from ..files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from .instances import MAX_ID, Instances, read_instances
from .item import ColumnItems, RawSource, bends, left_aside, note, problem_record, unreadable
from .objects import UNUSABLE, Objects, Problem


def read(spec) -> RawSource:
    """Read all splits; their categories are joined by id, and become classes in order of id."""
    unusual, known = [], {}
    instances = {split: read_instances(storage.join(spec.uri, place.annotations), Instances(unusual, known))
                 for split, place in spec.splits.items()}
    inputs = tuple(columns.sha256 for columns in instances.values())
    names = _categories(instances, spec.uri)
    roots = _roots(instances, names)
    names = {code: name for code, name in names.items() if code not in roots}
    class_codes = tuple(sorted(names))  # codes of ids that are no numbers are negative, and come first
    items, problems, below = {}, {}, {}
    originals = [{"class_id": number, "source_id": unusual[-MAX_ID - code]}
                 for code, number in zip(class_codes, _numbered(class_codes), strict=True) if code <= -MAX_ID]
    for split, place in spec.splits.items():
        images = storage.join(spec.uri, place.images)
        directory = posixpath.normpath(place.images)
        if directory not in below:
            files = images_below(images)
            below[directory] = files, bytearray(len(files))
        items[split], problems[split], codes = _read_split(split, images, *below[directory], instances.pop(split),
                                                           class_codes)
        originals += [{"split": split, "image_id": number, "source_id": unusual[-MAX_ID - code]}
                      for code, number in zip(codes, items[split].image_ids.tolist(), strict=True) if code <= -MAX_ID]
        problems[split] += [note(split, "category that only groups others is no class", 1, f"'{name}'")
                            for name in roots.values()]
    annotations = {posixpath.normpath(place.annotations) for place in spec.splits.values()}
    problems[split] += left_aside((_unused(below) | _elsewhere(spec.uri, list(below))) - annotations)
    return RawSource(tuple(names[code] for code in class_codes), _numbered(class_codes), items, problems, inputs,
                     tuple(originals))


def _categories(instances: dict[str, Instances], uri: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for split, columns in instances.items():
        for code, name in columns.categories:
            first = names.setdefault(code, name)
            if name != first:
                raise JobError(uri, f"category {columns.identity(code)} is '{first}' in one split and '{name}' in "
                                    f"split '{split}'", "give all splits the same categories")
    return names


def _roots(instances: dict[str, Instances], names: dict[int, str]) -> dict[int, str]:
    """The categories that no annotation uses and others name as their supercategory, as Roboflow writes."""
    groups: dict[str, set[str]] = {}
    for columns in instances.values():
        for group, members in columns.groups.items():
            groups.setdefault(group, set()).update(members)
    return {code: name for code, name in names.items()
            if _is_root(groups.get(name, set()), name, [other for key, other in names.items() if key != code])
            and not any(np.isin(code, np.asarray(columns.category_ids)) for columns in instances.values())}


def _is_root(members: set[str], name: str, others: list[str]) -> bool:
    return any(member != name or member in others for member in members)


def _numbered(codes: Sequence[int]) -> tuple[int, ...]:
    """The ids; those that are no numbers, or too large, are numbered after the largest."""
    free = itertools.count(max((code for code in codes if code > -MAX_ID), default=-1) + 1)
    return tuple(code if code > -MAX_ID else next(free) for code in codes)


def _unused(below: dict[str, tuple[FileMap, bytearray]]) -> set[str]:
    """The files that no split names, from directory -> its files, and whether each of them is named."""
    def paths(named: bool) -> Iterator[str]:
        return (posixpath.normpath(posixpath.join(directory, path)) for directory, (files, used) in below.items()
                for path, is_used in zip(files, used, strict=True) if is_used == named)

    return set(paths(False)).difference(paths(True))  # directories may lie in one another


def _elsewhere(uri: str, directories: Sequence[str]) -> set[str]:
    """The files outside of the directories of images; none where listing them would be another request."""
    with storage.listed_once() as lists:
        if scheme_of(uri) and storage.absolute(uri) not in lists:
            return set()
        inside = tuple("" if directory == "." else directory + "/" for directory in directories)
        return {path for path in storage.list_files(uri).paths() if not path.startswith(inside)}


def _read_split(split: str, images_uri: str, present: FileMap, used: bytearray, instances: Instances,
                class_ids: tuple[int, ...]) -> tuple[ColumnItems, list[dict], list[int]]:
    """The items, records of what is not in them, and the codes of the items' ids; files that are named get `used`."""
    resolver = Resolver(present, images_uri, IMAGE_SUFFIXES)
    objects, problems = _objects(split, instances, class_ids)
    files, positions, rows = FileColumns(), array("q"), {}  # files, their positions in the file; image -> row of both
    lost: dict[int, dict] = {}
    for position, (image_id, name) in enumerate(zip(instances.image_ids, instances.file_names, strict=True)):
        found = resolver.find(name)
        listed = present.files.position(found.path) if found else None
        if listed is not None:  # on the web nothing is listed
            used[listed] = True
        if image_id in rows and found == files[rows[image_id]]:
            problems.append(note(split, "image listed twice", 1, name))
            continue
        problem = None
        if image_id in rows:
            problem = Problem("duplicate image id", "the first image with this id stays", is_image=True)
        elif found is None:
            problem = Problem("missing image file", f"no file {name} below {images_uri}", is_image=True)
        elif name.lower().endswith(OTHER_PICTURES):
            problem = unreadable(name)
        if problem:
            problems.append(problem_record(split, problem, name, instances.identity(image_id)))
            lost.setdefault(image_id, problems[-1])
        else:
            rows[image_id] = len(files)
            files.append(found)
            positions.append(position)
    _count_objects({code: record for code, record in lost.items() if code not in rows}, instances)
    sizes_hw = np.asarray(instances.sizes_hw).reshape(-1, 2)[np.asarray(positions)]
    codes = np.fromiter(rows, np.int64, len(rows))
    objects, ends = _by_image(codes, objects, np.asarray(instances.of_image))
    problems += [*bends(split, resolver), *(note(split, what, count, images_uri) for what, count
                                            in instances.notes.items())]
    image_ids = np.array(_numbered(codes.tolist()), np.int64)
    items = ColumnItems(images_uri, image_ids, files, sizes_hw, objects, ends)
    return items, problems, list(rows)


def _count_objects(lost: dict[int, dict], instances: Instances) -> None:
    """Add to the record of each lost image, by the code of its id, how many objects are lost with it."""
    of_image = np.asarray(instances.of_image)
    codes, counts = np.unique(of_image[np.isin(of_image, [*lost])], return_counts=True)
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        lost[code]["objects"] = count


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
    labels[list(problems)] = UNUSABLE
    return Objects(labels.astype(np.int32), np.asarray(instances.boxes_xyxy).reshape(-1, 4),
                   np.asarray(instances.iscrowd).view(np.bool_), np.asarray(instances.area),
                   np.asarray(instances.num_rings), np.asarray(instances.ring_lengths), np.asarray(instances.xy),
                   problems), unknown


def _by_image(image_ids: np.ndarray, objects: Objects, of_image: np.ndarray) -> tuple[Objects, np.ndarray]:
    """The objects of each image in turn, in file order, and where they end; those of other images are left out."""
    by_id = np.argsort(image_ids)
    wanted = np.flatnonzero(np.isin(of_image, image_ids))
    image = by_id[np.searchsorted(image_ids, of_image[wanted], sorter=by_id)]
    objects = objects.take(wanted[np.argsort(image, kind="stable")])
    return objects, objects.ends(np.bincount(image, minlength=len(image_ids)))
