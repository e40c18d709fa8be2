"""Hard links to the image files of a dataset's source, in place of copies."""

import os
import threading

from ... import storage
from ...errors import JobError
from ...storage.location import scheme_of
from ..files.resolver import Resolver
from ..files.suffixes import IMAGE_SUFFIXES
from ..manifest import Manifest


class Links:
    """The image files of a dataset's sources, found by name and compared byte by byte."""

    def __init__(self, manifest: Manifest, output: str):
        """JobError unless the sources and the output are local directories."""
        output = storage.absolute(output)
        sources = manifest.source.get("sources") or [{"name": "", "uri": manifest.source.get("uri")}]
        self._lock = threading.Lock()
        self._resolvers: list[tuple[str, str, Resolver]] = []
        for source in sources:
            uri = source["uri"]
            if not uri or scheme_of(uri) or scheme_of(output) or not os.path.isdir(uri):
                raise JobError("images: link", f"the source is {uri or 'no folder'}, and the output {output}: a link needs "
                                               "two local directories", "set it to true, and the images are written")
            prefix = f"{source['name']}/" if source["name"] else ""
            self._resolvers.append((prefix, uri, Resolver(storage.list_files(uri).by_path, uri, IMAGE_SUFFIXES)))

    def link(self, file_name: str, image: bytes, output: str) -> bool:
        """Link the file of an image at `output`; False, with nothing done, where it is not found as it was."""
        for prefix, uri, resolver in self._resolvers:
            if not file_name.startswith(prefix):
                continue
            try:
                with self._lock:
                    found = resolver.find(file_name.removeprefix(prefix))
            except JobError:  # it may mean several
                return False
            place = found and os.path.join(uri, found.path)
            if not place or found.num_bytes != len(image) or storage.read_bytes(place) != image:
                return False
            os.makedirs(os.path.dirname(output), exist_ok=True)
            if os.path.exists(output):
                os.remove(output)
            try:
                os.link(place, output)
            except OSError:  # another disk
                return False
            return True
        return False
