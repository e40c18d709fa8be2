"""Bytes -> text, each in its own encoding: nothing is ever read with replacement characters.

A byte order mark decides first (UTF-8, UTF-16, UTF-32), then the declaration of an XML file, and UTF-8 else.
"""

import codecs
import re
from collections.abc import Iterable, Iterator

from ... import storage
from ...errors import JobError, NotFound

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
          (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
"""Byte order marks; that of UTF-32 begins with that of UTF-16."""
MARK_BYTES = 4
_DECLARATION = re.compile(rb"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_DECLARED = re.compile(r"^\s*<\?xml[^>]*\?>")
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "ascii": "utf-8"}
"""Encodings by which writers mean a larger one: all text of the first reads the same in the second."""


class NotText(JobError):
    """Bytes that are not text in the encoding that counts for them."""


def encoding_of(start: bytes) -> tuple[str, int]:
    """Encoding of a text that begins with `start`, and the length of its byte order mark."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding, len(mark)
    return "utf-8", 0


def decode(data: bytes, where: str) -> str:
    """The text in UTF-8, or in UTF-16 or UTF-32 by its byte order mark; NotText with file and offset if it is not."""
    encoding, skipped = encoding_of(data[:MARK_BYTES])
    return "".join(decode_chunks([data[skipped:]], encoding, skipped, where))


def decode_chunks(chunks: Iterable[bytes], encoding: str, offset: int, where: str) -> Iterator[str]:
    """The text of bytes that come in chunks and begin at `offset` of the file; NotText as of `decode`."""
    decoder = codecs.getincrementaldecoder(encoding)()
    for chunk in chunks:
        pending = len(decoder.getstate()[0])
        try:
            yield decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise _undecodable(error, encoding, offset - pending, where) from None
        offset += len(chunk)
    pending = len(decoder.getstate()[0])
    try:
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _undecodable(error, encoding, offset - pending, where) from None


def _undecodable(error: UnicodeDecodeError, encoding: str, offset: int, where: str) -> NotText:
    bad = error.object[error.start:error.start + 1].hex()
    return NotText(where, f"byte 0x{bad} at offset {offset + error.start} is not {encoding} text ({error.reason})",
                   "save the file as UTF-8, or (XML) declare the encoding that it has")


def decode_xml(data: bytes, where: str) -> str:
    """The text of an XML file without its declaration; NotText if its encoding is unknown, or not what is in it."""
    encoding, skipped = encoding_of(data[:MARK_BYTES])
    if not skipped:
        encoding = _declared_encoding(data, where)
    text = "".join(decode_chunks([data[skipped:]], encoding, skipped, where))
    return _DECLARED.sub("", text, count=1).strip()


def _declared_encoding(data: bytes, where: str) -> str:
    if data[:2] in (b"<\0", b"\0<"):  # UTF-16 without a byte order mark
        return "utf-16-le" if data[0] else "utf-16-be"
    match = _DECLARATION.match(data[:256])
    if not match:
        return "utf-8"
    declared = match[1].decode("ascii")
    try:
        codec = codecs.lookup(declared)
        "".encode(codec.name)  # LookupError for codecs that are no text encodings
    except LookupError:
        raise NotText(where, f"declares the encoding '{declared}', which is unknown",
                      "save the file as UTF-8") from None
    if codec.name.startswith(("utf-16", "utf-32")):
        return "utf-8"  # the declaration itself was read in single bytes: writers of .NET leave it there
    return _SUPERSETS.get(codec.name, codec.name)


def read_text(uri: str) -> str:
    """Read a text file; NotFound names the key that refers to it."""
    return decode(read_bytes(uri), uri)


def read_bytes(uri: str) -> bytes:
    """Read a file; NotFound names the key that refers to it."""
    try:
        return storage.read_bytes(uri)
    except NotFound:
        raise NotFound(uri, "there is no such file", "check source.uri and source.splits") from None
