"""The image files of a folder, found by the names that annotation files give.

Those close to the annotation file are found first, for all of them: a name that is left is not taken for an image that
another annotation file has beside it.
"""

import posixpath
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ....storage.disk import FileInfo
from ...files.listing import Listing
from ...files.resolver import Resolver, plain_parts
from ...files.suffixes import IMAGE_SUFFIXES, OTHER_PICTURES
from .entries import Entry

Found = tuple[FileInfo, Sequence[tuple[str, str]]]
"""An image, and what had to be bent to find it, each with an example."""


class Pictures:
    """Images below a listing's URI, with an index for each directory in which one was looked for."""

    def __init__(self, listing: Listing):
        self.uri = listing.uri
        self.files = {path: info for path, info in sorted(listing.files.items())
                      if path.lower().endswith(IMAGE_SUFFIXES + OTHER_PICTURES)}
        self._paths = list(self.files)
        self._stems = {path.rpartition(".")[0]: path for path in reversed(self._paths)}
        self._indexes: dict[tuple[str, bool], Resolver] = {}

    def located(self, entries: Sequence[Entry]) -> dict[int, Found]:
        """Position of an entry -> its image; JobError if a name means several images alike."""
        found: dict[int, Found] = {}
        ways: tuple[Callable[[Entry], Found | None], ...] = (self._written, self._near, self._anywhere)
        for way in ways:
            taken = {info.path for info, _ in found.values()}
            for position, entry in enumerate(entries):
                if position not in found and (image := way(entry)) and image[0].path not in taken:
                    found[position] = image
        return found

    def _written(self, entry: Entry) -> Found | None:
        """By a name as written, with its ending or without, in the annotation file's directory, the one above, or
        images/ in these."""
        directory = entry.path.rpartition("/")[0]
        above = posixpath.dirname(directory)
        for name in filter(None, (*entry.names, *entry.beside)):
            for place in (directory, f"{directory}/images", above, f"{above}/images"):
                path = posixpath.normpath(posixpath.join(place, name.replace("\\", "/"))).lstrip("/")
                if path in self.files or path in self._stems:
                    return self.files[path if path in self.files else self._stems[path]], ()
        return None

    def _near(self, entry: Entry) -> Found | None:
        """By a name in other words below the annotation file's directory or one above it, or in directories named like
        its own; names of `beside` only in its own and images/ there."""
        *directories, _ = entry.path.split("/")
        for name in filter(None, entry.names):
            for length in range(len(directories), 0, -1):
                if found := self._resolved(name, "/".join(directories[:length])):
                    return found
            for skipped in range(len(directories)) if not plain_parts(name)[1] else ():
                if found := self._resolved("/".join([*directories[skipped:], name])):
                    return found
        for name in filter(None, entry.beside):
            for place in ("/".join(directories), "/".join([*directories, "images"])):
                if found := self._resolved(name, place, is_flat=True):
                    return found
        return None

    def _anywhere(self, entry: Entry) -> Found | None:
        return next((found for name in entry.names if name and (found := self._resolved(name))), None)

    def _resolved(self, name: str, directory: str = "", is_flat: bool = False) -> Found | None:
        resolver = self._index(directory, is_flat)
        found = resolver.find(name)
        if found is None:
            return None
        bends = [(f"file name found in spite of {how}", resolver.examples[how]) for how in resolver.bent]
        resolver.bent.clear()
        return self.files[posixpath.join(directory, found.path)], bends

    def _index(self, directory: str, is_flat: bool) -> Resolver:
        """An index of the images below a directory, or just of those in it."""
        if (directory, is_flat) not in self._indexes:
            prefix = directory + "/" if directory else ""
            inside = {path[len(prefix):]: replace(self.files[path], path=path[len(prefix):])
                      for path in self._below(prefix) if not is_flat or "/" not in path[len(prefix):]}
            where = f"{self.uri.rstrip('/')}/{prefix}"
            self._indexes[directory, is_flat] = Resolver(inside, where, IMAGE_SUFFIXES + OTHER_PICTURES)
        return self._indexes[directory, is_flat]

    def _below(self, prefix: str) -> Iterator[str]:
        for position in range(bisect_left(self._paths, prefix), len(self._paths)):
            if not self._paths[position].startswith(prefix):
                return
            yield self._paths[position]
