"""Pascal VOC: JPEGImages/, Annotations/NAME.xml and lists of names in ImageSets/Main/.

Pixels count from 1 and a box includes its last pixel, so (xmin - 1, ymin - 1, xmax, ymax) is the box here.
"Difficult" objects become crowds, which training does not use and evaluation ignores, as VOC's own evaluation
does. The file name in the XML is ignored: that of the list is used. The size decides between two frames alone: where
it is that of the stored pixels and not that of the image as EXIF displays it, boxes are turned.
"""

import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

from ... import storage
from ...errors import JobError
from ...storage.disk import FileInfo
from .item import IMAGE_SUFFIXES, FileItem, RawSource, problem_record
from .objects import Annotation, Objects, Problem
from .text import read_text

Named = tuple[str, Annotation]
PARALLEL_READS = 16


def read(spec) -> RawSource:
    """Read all splits with their annotations; without source.classes, all names that occur, sorted."""
    files = {info.path: info for info in storage.list_files(spec.uri)}
    images = {_stem(path): info for path, info in sorted(files.items())
              if path.startswith("JPEGImages/") and path.lower().endswith(IMAGE_SUFFIXES)}
    if not images:
        raise JobError(storage.join(spec.uri, "JPEGImages"), "there are no images here", "check source.uri")
    parsed, problems = {}, {}
    for split, place in spec.splits.items():
        names = [line.split()[0] for line in read_text(storage.join(spec.uri, place)).splitlines() if line.strip()]
        parsed[split], problems[split] = _read_split(spec.uri, split, names, images, files)
    classes = spec.classes or sorted({named[0] for rows in parsed.values() for _, _, objects, _ in rows
                                      for named in objects if isinstance(named, tuple)})
    splits = {split: [_item(spec.uri, index, row, list(classes)) for index, row in enumerate(rows)]
              for split, rows in parsed.items()}
    return RawSource(tuple(classes), tuple(range(len(classes))), splits, problems)


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _read_split(uri: str, split: str, names: list[str], images: dict[str, FileInfo],
                files: dict[str, FileInfo]) -> tuple[list, list[dict]]:
    rows, problems, seen = [], [], set()
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        texts = pool.map(lambda name: _annotation_text(uri, name, files), names)
        for name, text in zip(names, texts, strict=True):
            problem = None
            if name in seen:
                problem = Problem("duplicate image id", "the image is listed twice", is_image=True)
            elif name not in images:
                problem = Problem("missing image file", f"no image {name} below JPEGImages", is_image=True)
            elif text is None:
                problem = Problem("missing annotation file", f"no Annotations/{name}.xml", is_image=True)
            parsed = None if problem else parse(text)
            if isinstance(parsed, Problem):
                problem = parsed
            seen.add(name)
            if problem:
                problems.append(problem_record(split, problem, name))
            else:
                rows.append((images[name], storage.digest(text.encode())[:16], *parsed))
    return rows, problems


def _annotation_text(uri: str, name: str, files: dict[str, FileInfo]) -> str | None:
    path = f"Annotations/{name}.xml"
    return read_text(storage.join(uri, path)) if path in files else None


def parse(text: str) -> tuple[list[Named | Problem], tuple[int, int] | None] | Problem:
    """Class name and annotation (label not set yet) of each object in the XML; height and width that it declares."""
    try:
        root = ElementTree.fromstring(text.strip())
    except ElementTree.ParseError as error:
        return Problem("malformed annotation file", str(error), is_image=True)
    return [_parse_object(element) for element in root.iter("object")], _declared_hw(root)


def _declared_hw(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        height, width = (int(root.findtext(f"size/{key}") or "") for key in ("height", "width"))
    except ValueError:
        return None
    return height, width


def _parse_object(element: ElementTree.Element) -> Named | Problem:
    name = (element.findtext("name") or "").strip()
    if not name:
        return Problem("unknown class", "an object has no name")
    try:
        corners = [float(element.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")]
    except ValueError:
        return Problem("malformed box", f"the bndbox of a '{name}' is incomplete")
    box = (corners[0] - 1, corners[1] - 1, corners[2], corners[3])
    return name, Annotation(-1, box, iscrowd=(element.findtext("difficult") or "0").strip() == "1")


def _item(uri: str, index: int, row: tuple, classes: list[str]) -> FileItem:
    image, digest, objects, declared_hw = row
    labelled = [entry if isinstance(entry, Problem) else _labelled(*entry, classes) for entry in objects]
    return FileItem(image_id=index, file_name=image.path.removeprefix("JPEGImages/"), num_bytes=image.num_bytes,
                    mark=image.mark + digest, uri=storage.join(uri, image.path), objects=Objects.of(labelled),
                    declared_hw=declared_hw)


def _labelled(name: str, annotation: Annotation, classes: list[str]) -> Annotation | Problem:
    if name not in classes:
        return Problem("unknown class", f"'{name}'")
    return Annotation(classes.index(name), annotation.box_xyxy, annotation.iscrowd)
