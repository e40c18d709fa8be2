"""Locations: local paths, ``scheme://…``, and archives: ``zip://LOCATION!/path`` is a file in the archive there."""

import os
import re

ARCHIVES = ("zip", "tar")
_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
_QUERY = re.compile(r"(?<=://)([^?]*)\?[^!]*")
_CHAINED = re.compile(rf"^({'|'.join(ARCHIVES)})://(.*?)::(.+)$")


def scheme_of(uri: str) -> str:
    """The scheme in lower case; empty for a local path."""
    match = _SCHEME.match(uri)
    return "" if match is None or match[1].lower() == "file" else match[1].lower()


def is_remote(uri: str) -> bool:
    """Whether `uri` has a scheme, and so is not a local path."""
    return scheme_of(uri) != ""


def is_shared(uri: str) -> bool:
    """Whether `uri` does not depend on a working directory, nor does the place of its archive."""
    return is_remote(outermost(uri)) or outermost(uri).startswith("/")


def plain(uri: str) -> str:
    """The location without ``file://``; fsspec's ``zip://path::archive`` is written as ``zip://archive!/path``."""
    if match := _SCHEME.match(uri):
        uri = match[1].lower() + uri[len(match[1]):]
    if match := _CHAINED.match(uri):
        return inside(match[1], plain(match[3]), "" if "*" in match[2] else match[2])
    return uri.removeprefix("file://")


def absolute(uri: str) -> str:
    """The same location as an absolute path or URI, without a trailing slash."""
    uri = plain(uri)
    if scheme_of(uri) in ARCHIVES:
        archive, inner = parts(uri)
        return inside(scheme_of(uri), absolute(archive), inner)
    return uri.rstrip("/") if scheme_of(uri) else os.path.abspath(os.path.expanduser(uri))


def join(uri: str, *below: str) -> str:
    """`uri` with path parts below it."""
    names = [name for part in below for name in part.split("/") if name not in ("", ".")]
    return "/".join([uri.rstrip("/"), *names])


def inside(kind: str, archive: str, path: str = "") -> str:
    """The location of a path in an archive, or of its root."""
    return join(f"{kind}://{archive}!", path)


def parts(uri: str) -> tuple[str, str]:
    """Location of an archive, and the path in it."""
    archive, _, path = uri.partition("://")[2].partition("!/")
    return archive.removesuffix("!"), path.strip("/")


def outermost(uri: str) -> str:
    """The file that an archive's path lies in, or the location itself."""
    while scheme_of(uri) in ARCHIVES:
        uri = parts(uri)[0]
    return uri


def shown(uri: str) -> str:
    """The location without the query of a web address, which may hold a key."""
    return _QUERY.sub(r"\1?…", uri)
