"""What a source's uri names: a folder, an archive, or an annotation file, which is then the one truth."""

import os
import posixpath
from urllib.parse import quote

from ... import storage
from ...errors import JobError, NotFound, StorageError
from ...storage.disk import FileInfo
from ...storage.file_list import FileList, FileMap
from ...storage.location import inside, parts, scheme_of
from .suffixes import IMAGE_SUFFIXES

ARCHIVES = {".zip": "zip", ".tar": "tar"}
_PACKED = (".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
SETTINGS = (".yaml", ".yml")
ANNOTATIONS = (".json", ".jsonl", ".ndjson", ".xml", ".csv", ".tsv", ".parquet", *SETTINGS)
"""Endings of the files that may hold the annotations of many images."""
WEB = ("http", "https")
_LAYOUT = {"images", "labels", "annotations", "jpegimages", "imagesets", "train", "training", "val", "valid", "validation",
           "test", "testing", "image_2", "label_2"}
"""Directories, in lower case, that a data set consists of: one that is alone in an archive is not the data set."""
_ANNOTATION_WORDS = ("annot", "label", "json")
"""What directories of annotations alone are called: the images lie beside them."""
_ZIP, _WEB_BYTES = b"PK\3\4", 200_000
"""How a zip begins; what an image is taken to have where sizes are not known."""


def located(uri: str) -> tuple[str, str]:
    """The folder that `uri` names, which may lie in an archive, and the annotation file in it; empty if it names none.

    JobError if it is a file of another kind.
    """
    uri = storage.absolute(uri)
    ending = os.path.splitext(uri.partition("?")[0].lower())[1]
    if scheme_of(uri) in ARCHIVES.values() and not parts(uri)[1]:
        return _data_root(uri), ""
    if not _is_file(uri, ending):
        return uri, ""
    if scheme_of(uri) in WEB and ending not in ANNOTATIONS and storage.read_range(uri, 0, len(_ZIP)) == _ZIP:
        ending = ".zip"
    if ending in ARCHIVES:
        return _data_root(inside(ARCHIVES[ending], uri)), ""
    if ending in ANNOTATIONS:
        folder, _, name = uri.rpartition("/")
        return folder, name
    if ending in _PACKED:
        raise JobError("source.uri", f"{uri} is packed as {ending}, of which no part can be read alone",
                       "unpack it and give the folder, or pack it as .zip")
    raise JobError("source.uri", f"{uri} is a file that holds neither a data set nor annotations",
                   f"give a folder, {', '.join(ARCHIVES)}, or an annotation file ({', '.join(ANNOTATIONS)})")


def _is_file(uri: str, ending: str) -> bool:
    if not scheme_of(uri):
        return os.path.isfile(uri)
    if scheme_of(uri) in WEB:
        return True
    if ending not in (*ANNOTATIONS, *ARCHIVES, *_PACKED):
        return False
    try:
        storage.size(uri)
        return True
    except NotFound:
        return False


def _data_root(root: str) -> str:
    """The directory in an archive that holds the data set: its root, or the one directory that wraps all."""
    while True:
        tops = {path.partition("/")[:2] for path in storage.list_files(root).paths()}
        top, is_directory = tops.pop() if len(tops) == 1 else ("", "")
        if not is_directory or top.lower() in _LAYOUT:
            return root
        root = storage.join(root, top)


def only_file(folder: str, name: str) -> tuple[str, FileList]:
    """The folder of an annotation file and its images, and the files there but for other annotations.

    Images lie below the file's own folder or, as COCO has them, below the one above. On the web nothing is listed.
    """
    if scheme_of(folder) in WEB:
        return folder, FileList.of([FileInfo(name, storage.size(storage.join(folder, name)), "")])
    files = storage.list_files(folder)
    above, _, directory = folder.rpartition("/")
    is_bare = not any(path.lower().endswith(IMAGE_SUFFIXES) for path in files.paths())
    if is_bare and any(word in directory.lower() for word in _ANNOTATION_WORDS):
        beside = storage.list_files(above)
        if any(path.lower().endswith(IMAGE_SUFFIXES) for path in beside.paths()):
            folder, name, files = above, f"{directory}/{name}", beside
    return folder, files.where(lambda path: path == name or not path.lower().endswith((*ANNOTATIONS, *ARCHIVES, ".txt")))


def settings_root(settings_uri: str, path: str) -> str:
    """The directory that `path` of a data.yaml names, where there is one; else that of the file."""
    parent = settings_uri.rpartition("/")[0]
    scheme, mark, rest = parent.rpartition("://")
    if not path or mark and posixpath.isabs(path):
        return parent
    named = scheme + mark + posixpath.normpath(posixpath.join(rest, path))
    try:
        return named if storage.exists(named) else parent
    except StorageError:  # another bucket
        return parent


def images_below(uri: str) -> FileMap:
    """The files below a directory of images by their names; JobError if there are none."""
    if scheme_of(uri) in WEB:
        return Unlisted(FileList.of(()))
    present = storage.list_files(uri).by_path
    if not present:
        raise JobError(uri, "there are no images here", "check source.uri and source.splits")
    return present


class Unlisted(FileMap):
    """Images on the web: every name is taken to be there; one that is not is lost when it is fetched."""

    def get(self, path: str, default: FileInfo | None = None) -> FileInfo:
        """A file of that name."""
        return FileInfo(path, _WEB_BYTES, "")


def image_uri(folder: str, name: str) -> str:
    """Where an image lies; on the web, names may be addresses themselves, and are written as addresses are."""
    if scheme_of(folder) not in WEB:
        return storage.join(folder, name)
    return name if scheme_of(name) in WEB else storage.join(folder, quote(name, safe="/%"))
