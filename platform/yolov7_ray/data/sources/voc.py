"""Pascal VOC: images, an XML file for each, and lists of names; or images and XML files in one directory.

Pixels count from 1 and a box includes its last pixel, so (xmin - 1, ymin - 1, xmax, ymax) is the box here.
"Difficult" objects become crowds, which training does not use and evaluation ignores, as VOC's own evaluation
does. The file name in the XML is ignored: that of the list is used. The size that it declares says in which frame
its boxes are. Rotated boxes and polygons are enclosed; parts are no objects.
"""

import posixpath
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ... import storage
from ...errors import JobError
from ...storage.disk import FileInfo
from ...storage.file_list import FileMap
from ..files.resolver import Resolver
from ..files.split_names import in_order, lists_of_splits, split_named
from ..files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from ..files.text import NotText, decode_xml, read_text
from .item import UNDECODABLE, FileItem, RawSource, bends, left_aside, note, problem_record, unreadable
from .objects import Annotation, Objects, Problem
from .voc_xml import Parsed, parse

PARALLEL_READS = 16
_IMAGE_WORDS = ("images", "image", "imgs", "img")
_XML_WORDS = (("annotations",), ("annotation",), ("labels",), ("xmls",), ("xml",), ("annots",))
"""What stands in the place of the directory of images."""
_CLASS_FLAG = re.compile(r"\s+-?[01]$")
"""What follows the name in VOC's lists of one class."""


def read(spec) -> RawSource:
    """Read all splits with their annotations; without source.classes, all names that occur, sorted."""
    folder = _Folder(spec.uri)
    rows, problems, used = {}, {}, set()
    places = {split: [place] for split, place in spec.splits.items()} if spec.splits else folder.splits()
    for split, of_split in places.items():
        rows[split], problems[split] = [], []
        for place in of_split:
            found, records, paths = _read_split(folder, split, place)
            rows[split] += found
            problems[split] += records
            used |= paths
    problems[split] += left_aside(folder.unused(used))
    classes = spec.classes or sorted({named[0] for split_rows in rows.values() for _, _, parsed in split_rows
                                      for named in parsed.objects if isinstance(named, tuple)})
    lost = [record for records in problems.values() for record in records if record["dropped"]]
    if not classes and lost:
        raise JobError(spec.uri, f"no object is left: {lost[0]['reason']} ({lost[0]['detail']})", "mend the source")
    splits = {split: [_item(folder, index, row, list(classes)) for index, row in enumerate(split_rows)]
              for split, split_rows in rows.items()}
    return RawSource(tuple(classes), tuple(range(len(classes))), splits, problems)


class _Folder:
    """Images and annotation files of a folder, by their names below JPEGImages and Annotations where it has them."""

    def __init__(self, uri: str):
        self.uri = uri
        self.files = storage.list_files(uri).by_path
        self.has_years, images = _below("JPEGImages", self.files, IMAGE_SUFFIXES + OTHER_PICTURES)
        _, annotations = _below("Annotations", self.files, (".xml",))
        if not images:
            raise JobError(storage.join(uri, "JPEGImages"), "there are no images here", "check source.uri")
        self.images = Resolver(images, uri, IMAGE_SUFFIXES + OTHER_PICTURES)
        self.annotations = Resolver(annotations, uri, (".xml",))
        self.names = {info.path: name for name, info in images.items()}
        """Path of each image -> its name in the dataset."""
        self.is_flat = len({path.rpartition("/")[0] for path in annotations}) < 2

    def splits(self) -> dict[str, list[str]]:
        """Lists in ImageSets/Main, those of each year, else directories called train, val or test, else all as train."""
        years: dict[str, list[str]] = {}
        for path in sorted(self.files):
            if path.lower().endswith(".txt") and "ImageSets/" in path:
                years.setdefault(path.rpartition("ImageSets/")[0], []).append(path)
        listed: dict[str, list[str]] = {}
        for lists in years.values():
            for split, place in lists_of_splits(lists).items():
                listed.setdefault(split, []).append(place)
        if listed:
            return {split: listed[split] for split in in_order(listed)}
        found: dict[str, dict[str, None]] = {}
        for path in self.files:
            parts = path.split("/")[:-1]
            for number, split in enumerate(map(split_named, parts), 1):
                if split:
                    found.setdefault(split, {}).setdefault("/".join(parts[:number]))
                    break
        places = {split: list(filter(self._has_images, found[split])) for split in in_order(found)}
        return {split: of_split for split, of_split in places.items() if of_split} or {"train": ["."]}

    def _has_images(self, directory: str) -> bool:
        return any(info.path.startswith(directory + "/") for info in self.images.files.values())

    def entries(self, place: str) -> list[tuple[str, FileInfo | None]]:
        """Names and images of a list file or directory; JobError if there is neither."""
        if place not in self.files:
            directory = place.strip("/").removeprefix("./")
            found = [(info.path, info) for _, info in sorted(self.images.files.items())
                     if directory in ("", ".") or info.path.startswith(directory + "/")]
            if not found:  # a directory of XML files
                found = [(info.path, info) for _, info in sorted(self.images.files.items())
                         if (xml := self.annotation_of(info)) and xml.path.startswith(directory + "/")]
            if found:
                return found
        lines = (line.strip() for line in read_text(storage.join(self.uri, place)).splitlines())
        year = place.rpartition("ImageSets/")[0]
        return [self._entry(line, year) for line in lines if line]

    def _entry(self, line: str, year: str) -> tuple[str, FileInfo | None]:
        line = year + line if self.has_years else line
        found = self.images.find(line)
        if found is None and _CLASS_FLAG.search(line):
            line = _CLASS_FLAG.sub("", line)
            found = self.images.find(line)
        return line, found

    def annotation_of(self, image: FileInfo) -> FileInfo | None:
        """The XML of an image: beside it, or of the same name below Annotations."""
        stem = image.path.rpartition(".")[0]
        if beside := self.files.get(stem + ".xml"):
            return beside
        parts = self.names[image.path].rpartition(".")[0].split("/")
        names = ["/".join(parts), *(["/".join(parts[1:])] if len(parts) > 1 else [])]
        for position in [position for position, part in enumerate(parts[:-1]) if part.lower() in _IMAGE_WORDS]:
            names += ["/".join([*parts[:position], *word, *parts[position + 1:]]) for word in ((), *_XML_WORDS)]
        names += [parts[-1]] if self.is_flat else []
        return next((found for name in names if (found := self.annotations.find(name))), None)

    def annotation_named(self, name: str) -> FileInfo | None:
        """The XML of an image that is missing."""
        stem = next((name[:-len(suffix)] for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix)), name)
        return self.annotations.files.get(stem + ".xml") or (
            self.annotations.files.get(stem.rpartition("/")[2] + ".xml") if self.is_flat else None)

    def unused(self, used: set[str]) -> set[str]:
        """The files that are not read; an unread image stands for its XML, too."""
        left = {path for path in self.files.keys() - used if "ImageSets/" not in path and "Segmentation" not in path}
        unread = [self.annotation_of(info) for info in self.images.files.values() if info.path in left]
        return left - {info.path for info in unread if info}

    def bends(self, split: str) -> list[dict]:
        """What had to be bent so far; that lists name no extensions is VOC's custom."""
        del self.images.bent["no extension"]
        found = bends(split, self.images)
        self.images.bent.clear()
        return found


def _below(root: str, files: FileMap, suffixes: tuple[str, ...]) -> tuple[bool, dict[str, FileInfo]]:
    """The files with these suffixes by their name below directories called `root`, if it is there, and whether there are
    several, as of several years: names begin with what is above them, then."""
    chosen = {path: info for path, info in files.items() if path.lower().endswith(suffixes)}
    split = {path: f"/{path}".partition(f"/{root}/") for path in chosen if f"/{root}/" in f"/{path}"}
    if not split:
        return False, {path: info for path, info in chosen.items() if "Segmentation" not in path}
    has_years = len({head for head, _, _ in split.values()}) > 1
    return has_years, {(f"{head}/{name}".lstrip("/") if has_years else name): chosen[path]
                       for path, (head, _, name) in split.items()}


@dataclass(frozen=True, slots=True)
class _Text:
    """An annotation file, read."""

    digest: str
    content: "Parsed | Problem"

    @property
    def num_objects(self) -> int:
        """Objects in it, 0 where it cannot be read."""
        return 0 if isinstance(self.content, Problem) else len(self.content.objects)


def _read_split(folder: _Folder, split: str, place: str) -> tuple[list, list[dict], set[str]]:
    """Images with their annotations, records of the others, and the paths of all files that were used."""
    rows, problems, notes, seen = [], [], {}, set()
    entries = folder.entries(place)
    annotations = [folder.annotation_of(image) if image else folder.annotation_named(name) for name, image in entries]
    orphans = _unlisted(folder, place, annotations)
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        texts = list(pool.map(lambda info: info and _parsed(storage.join(folder.uri, info.path)), annotations))
        alone = pool.map(lambda info: _parsed(storage.join(folder.uri, info.path)), orphans)
        masks = _masks(entries, annotations, texts)
        for (name, image), text in zip(entries, texts, strict=True):
            if image and image.path in masks:
                notes.setdefault("picture that has the annotations of another image, left aside", []).append(image.path)
                continue
            if image and image.path in seen:
                notes.setdefault("image listed twice", []).append(name)
                continue
            problem = _entry_problem(name, image, text)
            if problem:
                problems.append(problem_record(split, problem, name))
                continue
            seen.add(image.path)
            rows.append((image, text.digest, text.content))
            for reason in text.content.notes:
                notes.setdefault(reason, []).append(image.path)
        problems += [problem_record(split, Problem("annotation file without an image", info.path, is_image=True,
                                                   num_objects=text.num_objects), info.path)
                     for info, text in zip(orphans, alone, strict=True)]
    used = {info.path for info in [*annotations, *orphans, *(image for _, image in entries)] if info}
    problems += [note(split, reason, len(names), names[0]) for reason, names in notes.items()]
    return rows, problems + folder.bends(split), used | {place}


def _masks(entries: Sequence[tuple[str, FileInfo | None]], annotations: Sequence[FileInfo | None],
           texts: Sequence[_Text | None]) -> set[str]:
    """The pictures that share an XML file with the image that it names, as masks of the same name do."""
    named: dict[str, set[str]] = {}
    for (_, image), info, text in zip(entries, annotations, texts, strict=True):
        if image and info and not isinstance(text.content, Problem):
            is_named = image.path.rpartition("/")[2] == text.content.file_name.replace("\\", "/").rpartition("/")[2]
            named.setdefault(info.path, set()).update([image.path] if is_named else [])
    return {image.path for (_, image), info in zip(entries, annotations, strict=True)
            if image and info and len(named.get(info.path, ())) == 1 and image.path not in named[info.path]
            and posixpath.dirname(image.path) != posixpath.dirname(next(iter(named[info.path])))}


def _entry_problem(name: str, image: FileInfo | None, text: _Text | None) -> Problem | None:
    if image is None:
        return Problem("missing image file", f"no image {name}", is_image=True,
                       num_objects=text.num_objects if text else 0)
    if image.path.lower().endswith(OTHER_PICTURES):
        return unreadable(image.path, text.num_objects if text else 0)
    if text is None:
        return Problem("missing annotation file", f"no XML file for {image.path}", is_image=True)
    return text.content if isinstance(text.content, Problem) else None


def _unlisted(folder: _Folder, place: str, used: Sequence[FileInfo | None]) -> list[FileInfo]:
    """The XML files in a directory that belong to no image; a list may leave out what it wants."""
    if place in folder.files:
        return []
    known = {info.path for info in used if info}
    prefix = "" if place.strip("./") == "" else place.strip("/").removeprefix("./") + "/"
    return [info for info in folder.annotations.files.values()
            if info.path.startswith(prefix) and info.path not in known]


def _parsed(uri: str) -> _Text:
    data = storage.read_bytes(uri)
    try:
        content = parse(decode_xml(data, uri))
    except NotText as error:
        content = Problem(UNDECODABLE, str(error), is_image=True)
    return _Text(storage.digest(data)[:16], content)


def _item(folder: _Folder, index: int, row: tuple[FileInfo, str, Parsed], classes: list[str]) -> FileItem:
    image, digest, parsed = row
    labelled = [entry if isinstance(entry, Problem) else _labelled(*entry, classes) for entry in parsed.objects]
    return FileItem(image_id=index, file_name=folder.names[image.path], num_bytes=image.num_bytes,
                    mark=image.mark + digest, uri=storage.join(folder.uri, image.path), objects=Objects.of(labelled),
                    declared_hw=parsed.declared_hw)


def _labelled(name: str, annotation: Annotation, classes: list[str]) -> Annotation | Problem:
    if name not in classes:
        return Problem("unknown class", f"'{name}'")
    return Annotation(classes.index(name), annotation.box_xyxy, annotation.iscrowd)
