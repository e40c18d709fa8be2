"""What an annotation tool says of each image: the entries that the reader of every format yields."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .... import storage
from ...files.listing import Listing
from ...files.text import NotText, decode, decode_xml, read_bytes
from ..item import UNDECODABLE, Item
from ..objects import Annotation, Problem

PARALLEL_READS = 16
EVERY_CLASS = None
Named = tuple[str | None, Annotation]
"""Class name, or `EVERY_CLASS`, and annotation whose label is not set yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image as an annotation file describes it."""

    path: str
    """The annotation file, relative to the source's uri."""
    names: Sequence[str] = ()
    """Names that the image may have, likeliest first."""
    beside: Sequence[str] = ()
    """More names, which count only beside the annotation file, or in images/ there."""
    objects: Sequence[Named | Problem] = ()
    declared_hw: tuple[int, int] | None = None
    relative: bool = False
    """Boxes are in fractions of the image, not in pixels."""
    notes: Sequence[str] = ()
    """What was read in another way than the plain one, once each time."""
    subset: str = ""
    """The tool's own word for the split."""
    image_id: int | None = None
    mark: str = ""
    """Digest of the annotations."""
    problem: Problem | None = None
    """Why the annotations of the image cannot be used."""
    aside: str = ""
    """Why the entry is no image of the dataset, on purpose: it is only counted."""
    embedded: Callable[..., Item] | None = None
    """Makes an item of the image in the annotation file itself, for where the image's file is missing."""


def each_file(listing: Listing, paths: Iterable[str], parse: Callable[[str, str], Iterable[Entry]],
              image_names: Callable[[str], Sequence[str]] | None = None) -> Iterator[Entry]:
    """The entries that `parse` makes of each file's path and text, read in parallel, in the order of `paths`.

    A file that is no text is a NotText; or a problem of its image, where files are for one image each, whose names
    `image_names` tells.
    """
    def entries(path: str) -> list[Entry]:
        where = storage.join(listing.uri, path)
        decoded = decode_xml if path.lower().endswith(".xml") else decode
        try:
            return list(parse(path, decoded(read_bytes(where), where)))
        except NotText as error:
            if image_names is None:
                raise
            return [unusable(path, image_names(path), UNDECODABLE, str(error))]

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        for found in pool.map(entries, paths):
            yield from found


def unusable(path: str, names: Sequence[str], reason: str, detail: str) -> Entry:
    """The entry of an annotation file of one image that cannot be used."""
    return Entry(path=path, names=names, problem=Problem(reason, f"{path}: {detail}", is_image=True))


def stem_of(path: str) -> str:
    """The name of a file without directory and ending."""
    return path.rpartition("/")[2].rpartition(".")[0]
