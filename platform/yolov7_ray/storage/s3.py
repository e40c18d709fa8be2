"""S3 storage: one object or prefix, with verified reads.

Every object is written with its sha256 in its metadata, and verified against it on reading: no client notices a body
that is shorter than the object but as long as its header says, or a flipped bit. Retries are in `retry`.
"""

import base64
import hashlib
import io
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import boto3
import botocore.exceptions as faults
import pyarrow.fs
from botocore.config import Config

from ..errors import AlreadyExists, Corrupt, NotFound, StorageError
from . import activity, retry
from .disk import FileInfo, Skipped, digest, explained
from .retry import BrokenBody, endpoint, with_retries
from .stream import Ranges

# Ceph and older servers answer 411 to the trailing checksums that new clients send by default; this is read by
# boto3 and by pyarrow, in this process and its children. Uploads carry Content-MD5 and their sha256.
os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")

SINGLE_PUT_BYTES = 64 << 20
PART_BYTES = 16 << 20
MAX_PARTS = 10_000
PARALLEL_PARTS = 4
PARALLEL_DELETES = 16
ATTEMPTS = 3
"""Reads of an object before a wrong digest counts as corruption; uploads that the server may forget."""
CHUNK_BYTES = 1 << 20
PAGE_KEYS = 1000
"""Of a listing; servers give no more."""

_streamed: dict[tuple[str, str], str] = {}
"""URI and ETag of objects whose stream had another digest -> that digest."""
_CONDITION_FAILED = {"PreconditionFailed", "412"}


class S3:
    """One S3 location, object or prefix."""

    def __init__(self, bucket: str, key: str):
        self.bucket, self.key = bucket, key
        self.uri = f"s3://{bucket}/{key}".rstrip("/")

    @classmethod
    def of(cls, uri: str) -> "S3":
        """Parse ``s3://bucket/key``."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise StorageError(uri, "names no bucket", "write s3://bucket/prefix")
        return cls(bucket, key.rstrip("/"))

    def arrow(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """pyarrow's filesystem with the endpoint of the environment, which pyarrow ignores by default.

        Eight attempts last about 50 s. It checks no digests: it is for Ray's data, not for our own reads.
        """
        filesystem = pyarrow.fs.S3FileSystem(
            region=_region(self.bucket), endpoint_override=endpoint(), connect_timeout=5, request_timeout=20,
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=8))
        return filesystem, f"{self.bucket}/{self.key}".rstrip("/")

    def check_access(self, write: bool) -> None:
        """Raise if endpoint, credentials or bucket do not work; writing is not tested."""
        self._call("list_objects_v2", retry.RETRY_CHECK_FOR_S, Prefix=self.key, MaxKeys=1)

    # --- reading ----------------------------------------------------------------------------------------

    def read(self) -> bytes:
        """The whole content."""
        return self.read_with_etag()[0]

    def read_with_etag(self) -> tuple[bytes, str]:
        """The content and its ETag (unquoted: Ceph accepts no other form in conditions); Corrupt if it is damaged.

        An object written by other programs has no recorded digest. Its ETag is its MD5 on most servers, not on all,
        so the same bytes twice are accepted as intact.
        """
        earlier = None
        for _ in range(ATTEMPTS):
            data, reply = self._get()
            etag, recorded = reply["ETag"].strip('"'), reply["Metadata"].get("sha256")
            if digest(data) == recorded or recorded is None and (_fits_etag(data, reply) or data == earlier):
                return data, etag
            earlier = data
        raise self._corrupt(len(data), recorded or etag)

    def _corrupt(self, num_bytes: int, digest: str) -> Corrupt:
        return Corrupt(self.uri, f"is corrupt: {num_bytes} bytes come, and their digest is not {digest}",
                       "write it again from its source, or restore it from a backup")

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start to stop; their number is checked, their content needs a digest."""
        return self._get(start, stop)[0]

    def _get(self, start: int = 0, stop: int | None = None) -> tuple[bytes, dict]:
        condition = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}

        def get() -> tuple[bytes, dict]:
            reply = _client().get_object(Bucket=self.bucket, Key=self.key, **condition)
            data = _body(reply)
            if stop is not None and len(data) != stop - start:
                raise BrokenBody(f"{len(data)} of {stop - start} bytes")
            return data, reply

        return with_retries(self.uri, get)

    def open(self) -> BinaryIO:
        """The object in ranges, all of one version; verified at its end as by `read`."""
        head = self._call("head_object", Key=self.key)
        etag, recorded = head["ETag"].strip('"'), head["Metadata"].get("sha256")

        def fetch(start: int, stop: int) -> bytes:
            data, reply = self._get(start, stop)
            if reply["ETag"].strip('"') != etag:
                raise StorageError(self.uri, "changed while it was read", "start again when it is complete")
            return data

        def check(digest: str) -> None:
            if digest == (recorded or etag) or recorded is None and not _is_md5(head):
                return
            earlier, _streamed[self.uri, etag] = _streamed.get((self.uri, etag)), digest
            if recorded or earlier != digest:
                raise self._corrupt(head["ContentLength"], recorded or etag)

        return Ranges.opened(head["ContentLength"], fetch, "sha256" if recorded else "md5", check)

    def size_and_digest(self) -> tuple[int, str | None]:
        """Bytes of the object, and the sha256 recorded on writing (None: written by another program)."""
        head = self._call("head_object", Key=self.key)
        return head["ContentLength"], head["Metadata"].get("sha256")

    def exists(self) -> bool:
        """Whether there is an object, or a prefix that holds one."""
        try:
            self.size_and_digest()
            return True
        except NotFound:
            return next(self.files([]), None) is not None

    def files(self, skipped: list[Skipped]) -> Iterator[FileInfo]:
        """Objects below this prefix, without hidden ones, a page at a time."""
        prefix = f"{self.key}/" if self.key else ""
        for entry in self._entries(prefix):
            path = entry["Key"].removeprefix(prefix)
            if path and not path.endswith("/") and not any(part.startswith(".") for part in path.split("/")):
                yield FileInfo(path, entry["Size"], entry["ETag"].strip('"'))

    def _entries(self, prefix: str) -> Iterator[dict]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, MaxKeys=PAGE_KEYS, **token)
            yield from page.get("Contents", ())
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    # --- writing ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write or replace in a single PUT."""
        self._call("put_object", **self._content(data))

    def _content(self, data: bytes) -> dict:
        """Arguments of a PUT: the server checks the MD5, readers check the sha256."""
        return {"Key": self.key, "Body": data, "ContentMD5": _md5(data), "Metadata": {"sha256": digest(data)}}

    def upload(self, local_path: Path) -> None:
        """Copy a local file to this object, large ones in parallel parts; NotFound if there is none."""
        try:
            num_bytes = local_path.stat().st_size
            if num_bytes <= SINGLE_PUT_BYTES:
                return self.write(local_path.read_bytes())
            return self._upload_parts(local_path, num_bytes, digest(local_path))
        except OSError as error:
            raise explained(error, str(local_path)) from error

    def _upload_parts(self, local_path: Path, num_bytes: int, sha256: str) -> None:
        for attempt in range(ATTEMPTS):
            try:
                return self._upload_parts_once(local_path, num_bytes, sha256)
            except NotFound:  # the server forgot this upload, as it also does on completion
                with suppress(NotFound):
                    if self.size_and_digest() == (num_bytes, sha256):
                        return None
                if attempt == ATTEMPTS - 1:
                    raise

    def _upload_parts_once(self, local_path: Path, num_bytes: int, sha256: str) -> None:
        target = {"Key": self.key}
        target["UploadId"] = self._call("create_multipart_upload", Metadata={"sha256": sha256}, **target)["UploadId"]
        part_bytes = max(PART_BYTES, -(-num_bytes // MAX_PARTS))
        try:
            with open(local_path, "rb") as file, ThreadPoolExecutor(PARALLEL_PARTS) as pool:
                def put(number: int) -> dict:
                    data = os.pread(file.fileno(), part_bytes, (number - 1) * part_bytes)
                    reply = self._call("upload_part", PartNumber=number, Body=data, ContentMD5=_md5(data), **target)
                    return {"PartNumber": number, "ETag": reply["ETag"]}

                parts = list(pool.map(put, range(1, -(-num_bytes // part_bytes) + 1)))
            self._call("complete_multipart_upload", MultipartUpload={"Parts": parts}, **target)
        except BaseException:
            with suppress(StorageError):  # uploaded parts would be kept, and billed
                self._call("abort_multipart_upload", retry.RETRY_CHECK_FOR_S, **target)
            raise

    def write_if(self, data: bytes, expected_etag: str | None) -> str:
        """Write if the version is `expected_etag` (None: nothing exists).

        Always a single PUT: some servers ignore the condition on multipart uploads. If the reply of an earlier
        attempt was lost, the condition may have failed against our own write; reading it back tells.
        """
        condition = {"IfNoneMatch": "*"} if expected_etag is None else {"IfMatch": expected_etag}
        attempts = 0

        def put() -> str:
            nonlocal attempts
            attempts += 1
            try:
                reply = _client().put_object(Bucket=self.bucket, **_sent(self._content(data)), **condition)
                return reply["ETag"].strip('"')
            except faults.ClientError as error:
                if error.response["Error"]["Code"] not in _CONDITION_FAILED:
                    raise
            if attempts > 1:
                stored, etag = self.read_with_etag()
                if stored == data:
                    return etag
            raise AlreadyExists(self.uri, "another writer was faster", "read it again, or choose another name")

        return with_retries(self.uri, put)

    def delete(self) -> None:
        """Remove the object and all below its prefix one by one: bulk deletion differs among servers."""
        keys = [self.key, *(entry["Key"] for entry in self._entries(f"{self.key}/"))]
        with ThreadPoolExecutor(PARALLEL_DELETES) as pool:
            list(pool.map(lambda key: self._call("delete_object", Key=key), keys))

    def _call(self, operation: str, retry_for_s: float | None = None, **arguments: Any) -> dict:
        def attempt() -> dict:
            return getattr(_client(), operation)(Bucket=self.bucket, **_sent(arguments))

        return with_retries(self.uri, attempt, retry_for_s)


# --- bodies ---------------------------------------------------------------------------------------------


class _Sent(io.BytesIO):
    """A body that is sent in blocks: seen to move, and each within the connection's timeout, however slow the whole."""

    def read(self, size: int | None = -1) -> bytes:
        activity.moved()
        return super().read(size)


def _sent(arguments: dict) -> dict:
    """Arguments of an attempt, whose body is read from its start."""
    return arguments | {"Body": _Sent(arguments["Body"])} if "Body" in arguments else arguments


def _body(reply: dict) -> bytes:
    """As many bytes as the header says, in the time that the slowest useful connection takes."""
    expected_bytes, num_bytes, chunks = reply["ContentLength"], 0, []
    limit_s = retry.READ_TIMEOUT_S + expected_bytes / retry.SLOWEST_BYTES_PER_S
    deadline = time.monotonic() + limit_s
    with reply["Body"] as stream:  # read1 returns what has arrived, read waits for all
        while (chunk := stream.read1(CHUNK_BYTES)) and time.monotonic() < deadline:
            chunks.append(chunk)
            activity.moved()
            num_bytes += len(chunk)
    if num_bytes != expected_bytes:
        raise BrokenBody(f"{num_bytes} of {expected_bytes} bytes within {limit_s:.0f} s")
    return b"".join(chunks)


def _fits_etag(data: bytes, reply: dict) -> bool:
    """Whether `data` can be the object: False if the ETag looks like an MD5 and differs."""
    return not _is_md5(reply) or hashlib.md5(data, usedforsecurity=False).hexdigest() == reply["ETag"].strip('"')


def _is_md5(reply: dict) -> bool:
    """Whether an ETag looks like an MD5."""
    etag = reply["ETag"].strip('"')
    return bool(re.fullmatch("[0-9a-f]{32}", etag)) and reply.get("ServerSideEncryption", "AES256") == "AES256"


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


# --- clients --------------------------------------------------------------------------------------------


def _region(bucket: str) -> str:
    """The configured region, else the bucket's own as reported by AWS."""
    configured = os.environ.get("AWS_REGION") or boto3.Session().region_name
    return configured or ("us-east-1" if endpoint() else pyarrow.fs.resolve_s3_region(bucket))


_creation_lock = threading.Lock()  # creating boto3 clients is not thread-safe, using them is


def _client() -> Any:
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    with _creation_lock:
        return _client_of(os.getpid(), environment, retry.READ_TIMEOUT_S)  # connections do not survive a fork


@lru_cache(maxsize=8)
def _client_of(pid: int, environment: tuple, read_timeout_s: float) -> Any:
    config = Config(connect_timeout=4, read_timeout=read_timeout_s, max_pool_connections=64, signature_version="s3v4",
                    retries={"total_max_attempts": 1, "mode": "standard"},
                    request_checksum_calculation="when_required", response_checksum_validation="when_required")
    try:
        region = os.environ.get("AWS_REGION") or boto3.Session().region_name or "us-east-1"
        return boto3.Session().client("s3", endpoint_url=endpoint(), region_name=region, config=config)
    except ValueError as error:  # botocore says so for an endpoint that is no URL
        raise StorageError("AWS_ENDPOINT_URL", f"'{endpoint()}' is not usable ({error})",
                           "write http://HOST:PORT or https://HOST") from error
