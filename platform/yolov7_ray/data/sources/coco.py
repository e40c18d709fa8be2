"""COCO instances JSON: images, annotations with [x, y, width, height], polygons or RLE, and categories."""

import json
from typing import Any

import numpy as np

from ... import storage
from ...errors import JobError
from .item import Annotation, FileItem, Problem, RawSource, problem_record, read_text


def read(spec) -> RawSource:
    """Read all splits; their categories are joined by id, and become classes in order of id."""
    texts = {split: read_text(storage.join(spec.uri, files.annotations)) for split, files in spec.splits.items()}
    inputs = tuple(storage.digest(text.encode()) for text in texts.values())
    documents = {split: _document(texts.pop(split), storage.join(spec.uri, files.annotations))
                 for split, files in spec.splits.items()}
    try:
        names = _categories(documents, spec.uri)
        class_ids = tuple(sorted(names))
        class_index = {category_id: index for index, category_id in enumerate(class_ids)}
        items, problems = {}, {}
        for split, files in spec.splits.items():
            images = storage.join(spec.uri, files.images)
            items[split], problems[split] = _read_split(split, images, documents.pop(split), class_index)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise JobError(spec.uri, f"an annotation file has an entry that is not COCO's ({error!r})",
                       "every image needs id and file_name, every category id and name") from None
    return RawSource(tuple(names[i] for i in class_ids), class_ids, items, problems, inputs)


def _document(text: str, uri: str) -> dict:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise JobError(uri, f"is not JSON ({error})", "give a COCO instances file") from None
    for key in ("images", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise JobError(uri, f"has no list '{key}'", "give a COCO instances file")
    return document


def _categories(documents: dict[str, dict], uri: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for split, document in documents.items():
        for category in document["categories"]:
            name = names.setdefault(int(category["id"]), str(category["name"]))
            if name != str(category["name"]):
                raise JobError(uri, f"category {category['id']} is '{name}' in one split and '{category['name']}' "
                                    f"in split '{split}'", "give all splits the same categories")
    return names


def _read_split(split: str, images_uri: str, document: dict, class_index: dict[int, int]) -> tuple[list, list]:
    files = {info.path: info for info in storage.list_files(images_uri)}
    if not files:
        raise JobError(images_uri, "there are no images here", "check source.uri and source.splits")
    annotations, problems = _by_image(split, document, class_index)
    items: list[FileItem] = []
    seen: set[int] = set()
    for entry in document["images"]:
        image_id, name = int(entry["id"]), str(entry["file_name"])
        problem = None
        if image_id in seen:
            problem = Problem("duplicate image id", "the first image with this id stays", is_image=True)
        elif name not in files:
            problem = Problem("missing image file", f"no file {name} below {images_uri}", is_image=True)
        if problem:
            problems.append(problem_record(split, problem, name, image_id))
            continue
        seen.add(image_id)
        items.append(FileItem(image_id=image_id, file_name=name, num_bytes=files[name].num_bytes,
                              mark=files[name].mark, uri=storage.join(images_uri, name),
                              annotations=tuple(annotations.get(image_id, ()))))
    return items, problems


def _by_image(split: str, document: dict, class_index: dict[int, int]) -> tuple[dict[int, list], list[dict]]:
    known = {int(entry["id"]) for entry in document["images"]}
    by_image: dict[int, list[Annotation | Problem]] = {}
    problems, seen = [], set()
    for entry in document.get("annotations", ()):
        image_id, annotation_id = entry.get("image_id"), entry.get("id")
        if image_id not in known:
            problem = Problem("annotation of an unknown image", f"annotation {annotation_id}")
            problems.append(problem_record(split, problem, image_id=image_id))
        elif annotation_id is not None and annotation_id in seen:
            by_image.setdefault(image_id, []).append(Problem("duplicate annotation id", f"id {annotation_id}"))
        else:
            seen.add(annotation_id)
            by_image.setdefault(image_id, []).append(_annotation(entry, class_index))
    return by_image, problems


def _annotation(entry: dict, class_index: dict[int, int]) -> Annotation | Problem:
    where = f"annotation {entry.get('id')}"
    if entry.get("category_id") not in class_index:
        return Problem("unknown class", f"{where}: category_id {entry.get('category_id')}")
    try:
        x, y, width, height = map(float, entry["bbox"])
        area = None if entry.get("area") is None else float(entry["area"])
    except (KeyError, TypeError, ValueError):
        return Problem("malformed box", f"{where}: bbox {entry.get('bbox')!r}")
    return Annotation(class_index[entry["category_id"]], (x, y, x + width, y + height),
                      bool(entry.get("iscrowd", 0)), area, _polygons(entry.get("segmentation")))


def _polygons(segmentation: Any) -> tuple[np.ndarray, ...]:
    """Rings of at least three points; RLE masks, which crowds have, are no polygons."""
    if not isinstance(segmentation, list):
        return ()
    return tuple(np.asarray(ring, np.float32) for ring in segmentation
                 if isinstance(ring, list) and len(ring) >= 6 and len(ring) % 2 == 0)

